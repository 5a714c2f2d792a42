"""What several tests use: a run of two seconds, decoders whose p(x) is known, what is asked of files and sentences."""

import math
from pathlib import Path

import torch

from tvae_lib.runs.directory import Run
from tvae_lib.runs.execute import execute
from tvae_lib.training.config import make_config

FAST = {  # a run of two seconds
    "device": "cpu",
    "holdout": 0.9,
    "total_epochs": 5,
    "eval_every": 2,
    "eval_samples": 2048,
    "final_samples": 2048,
    "coverage_samples": "100,1000",
    "checkpoint_every": 2,
}
SAME = ("model.safetensors", "history.csv", "evaluations.csv", "evaluations.safetensors", "metrics.json")


class Constant(torch.nn.Module):
    """The same logits for every code."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, z):
        return self.logits.expand(len(z), 9, 3)


class Linear(torch.nn.Module):
    """Trit j reads coordinate j alone: logits (-k z - b, 0, k z - b); p(x) is a product of nine known marginals."""

    def __init__(self, slope, offset):
        super().__init__()
        self.slope, self.offset = slope, offset

    def forward(self, z):
        z = self.slope * z[:, :9]
        return torch.stack([-z - self.offset, torch.zeros_like(z), z - self.offset], -1)

    def trit_marginal(self):
        z = torch.linspace(-12, 12, 200_001, dtype=torch.float64).unsqueeze(1)
        density = torch.exp(-z.square() / 2) / math.sqrt(2 * math.pi) * (z[1] - z[0])
        p = torch.softmax(self(z.expand(-1, 9))[:, 0], -1)
        return (density * p).sum(0)


def start(path: Path, **parameters) -> Run:
    """The `FAST` run with these parameters, executed in a directory."""
    return execute(make_config(**(FAST | parameters), run_dir=str(path)))


def assert_same_files(run: Run, other: Run) -> None:
    for name in SAME:
        assert (run.path / name).read_bytes() == (other.path / name).read_bytes(), name


def is_one_sentence(text: str) -> bool:
    return "\n" not in text and text.endswith(".") and ". " not in text
