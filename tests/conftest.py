"""Settings of every test run: notebooks show the reference run, examples are the same every time."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pytest
import torch

os.environ.setdefault("TVAE_SHOW_REFERENCE", "1")

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


@pytest.fixture(params=["cpu", "cuda"])
def device(request) -> torch.device:
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device on this machine")
    return torch.device(request.param)


@pytest.fixture
def rng() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    """The book, built strictly once for all tests that read its pages."""
    root, output = Path(__file__).resolve().parent.parent, tmp_path_factory.mktemp("book")
    build = [sys.executable, root / "book" / "build.py", "--output", output]
    done = subprocess.run(build, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output / "_build" / "html"
