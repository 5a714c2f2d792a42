"""The same step and the same samples on a CPU, several times as fast, and nothing new.

Each costly function of the system has a twin here that does the same in compiled loops (Numba) with its gradient in
closed form. `twins` maps them: what has none is recorded as it is written. To understand the system, skip this package.

arithmetic   compiled loops, exponentials, how a piece is split into tasks
networks     chains of linear layers and ReLUs, forwards and backwards
latents      codes, their rate, their injection
terms        cross-entropy, entropies, repulsion
updates      AdamW with gradient norms, loss weights, the record
program      a recorded step in memory laid out once, its pieces shared by threads
twins        which function each piece stands for; a step as a program
decoding     what a decoder generates, and what it makes of codes
"""
