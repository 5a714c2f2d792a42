"""What tests share. Notebooks show the reference run, and hypothesis takes the same examples every time."""

import os
import subprocess
import sys
from pathlib import Path

import hypothesis
import pandas as pd
import pytest
import torch
from shared import start

from tvae_lib.runs.directory import Run

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
def whole(tmp_path_factory) -> Run:
    """The `FAST` run, five epochs without a stop."""
    return start(tmp_path_factory.mktemp("runs") / "whole")


@pytest.fixture
def made(tmp_path):
    """Makes a study, or parts of it, in folders of the test: the table, whole and with the columns of the committed."""
    from studies.catalogue import STUDIES
    from studies.study import make_parts, merge
    from studies.tables import read

    def make(study, parts=None, into="tables"):
        folder = tmp_path / into
        folder.mkdir()
        make_parts(study, list(parts or study.parts), folder, folder / "parts")
        merge(study, folder, folder / "parts")
        assert not set(study.lacking(folder)) & set(parts or study.parts)
        table = pd.read_csv(folder / f"{study.table}.csv")
        assert study.table not in STUDIES or set(table) == set(read(study.table))
        assert table.drop(columns="cka", errors="ignore").notna().all(axis=None)
        return table

    return make


@pytest.fixture(scope="session")
def html(tmp_path_factory) -> Path:
    """The book, built strictly once for all tests that read its pages, and as where it is published: without torch."""
    root, output, absent = Path(__file__).resolve().parent.parent, *map(tmp_path_factory.mktemp, ("book", "absent"))
    (absent / "torch.py").write_text('raise ModuleNotFoundError("the pages are built without torch")\n')
    build = [sys.executable, root / "book" / "build.py", "--output", output]
    done = subprocess.run(build, env=os.environ | {"PYTHONPATH": str(absent)}, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return output / "_build" / "html"
