"""The Ternary VAE v5.5 as a small library. A floor imports from those above it (`lint-imports` checks that).

    operations, coverage    the 19,683 operations; which share of them draws hit, which of them a decoder holds
    rng                     random streams, functions of seed, epoch and purpose
    system/                 the documents' equations: vae, dual, losses, schedules, statenet
    theory/                 what is computed, not trained: product_codes, coupling, balance
    training/               config, state, trainer (the step and the epoch), ensemble, recording
    measures/               what is measured: generation (of a decoder), reconstruction, codes, pair
    runs/                   a run as a directory: files, directory, evaluate, execute
    figures, ledger         style and palette of the figures; verdicts on claims

Beside it `studies`, the trainings behind the chapters and their tables: rates (2, 3), pairs (3, 5, 6), couplings (4),
phases (7), generators and whole_runs (9)."""

__version__ = "0.1.0"
