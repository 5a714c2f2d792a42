"""The Ternary VAE v5.5 as a small library: one module for one chapter of the book.

Imports go one way:
operations -> vae -> dual -> losses, schedules, statenet -> config -> training -> runs;
evaluation and figures read models and never train.
"""

__version__ = "0.1.0"
