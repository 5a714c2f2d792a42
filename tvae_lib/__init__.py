"""The Ternary VAE v5.5 as a small library. A floor imports from those above it (`lint-imports` checks that).

    errors                  what a user is told, one sentence each
    operations, coverage    the 19,683 operations; which share of them independent draws hit
    rng                     random streams, functions of seed, epoch and purpose
    system/                 the documents' equations: vae, dual, losses (every term), schedules, statenet
    theory/                 computed, not trained: product_codes (the best), coupling (collapse), balance (of gradients)
    training/               config, state, trainer (the step and the epoch), ensemble, recording, threads
    fused/                  the same step and samples in compiled loops: nothing new, only faster on a CPU
    measures/               generation (a decoder's p, KL(U||p)), reconstruction, codes, pair (columns of tables)
    runs/                   files (written whole), directory (a run, read), status (may it go on), evaluate, execute
    figures, ledger         style and palette of the figures; verdicts on claims

Beside it the package `studies` trains what chapters compare and writes their tables: rates (chapters 2, 3), variants
(3 to 7, 9), couplings (4), phases (7), generators and whole_runs (9)."""

import os

__version__ = "0.1.0"

if os.name == "nt":
    raise ImportError("tvae_lib runs on Linux, on macOS, and on Windows inside WSL; this is Windows itself.")
