"""The full-run notebook from outside: papermill as an experimenter calls it, nbval as a maintainer does."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest

from tvae_lib.training.config import FIELDS, REFERENCE, ROOT

NOTEBOOK = ROOT / "notebooks" / "08_full_run.ipynb"
QUICK = {"device": "cpu", "holdout": 0.9, "eval_every": 2, "eval_samples": 4096, "final_samples": 4096}


def environment(**extra) -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if k != "TVAE_SHOW_REFERENCE"} | extra


def papermill(*arguments) -> subprocess.CompletedProcess:
    command = [Path(sys.executable).parent / "papermill", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, env=environment(), capture_output=True, text=True)


def parameters(**values) -> list[str]:
    return [word for name, value in values.items() for word in ("-p", name, str(value))]


def test_three_epochs_by_papermill_leave_a_valid_directory_and_page(tmp_path):
    run, out = tmp_path / "run", tmp_path / "out.ipynb"
    arguments = parameters(epochs=3, seed=3, run_dir=run, **QUICK)
    done = papermill(NOTEBOOK, out, "--cwd", "notebooks", *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    config = json.loads((run / "config.json").read_text())
    assert config["parameters"]["seed"] == 3
    assert len(pd.read_csv(run / "history.csv")) == 3
    metrics = json.loads((run / "metrics.json").read_text())
    assert set(metrics["A"]["coverage"]) == {"10000", "50000", "195000"}
    assert 0 < metrics["A"]["coverage"]["10000"] < metrics["A"]["coverage"]["195000"] <= 1
    notebook = nbformat.read(out, 4)
    text = "".join(str(cell.get("outputs", "")) for cell in notebook.cells)
    assert config["run_id"] in text
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    bars = [line for line in printed.splitlines() if "document, seed 3:" in line]
    assert [f"{n}/3 [" in line for n, line in enumerate(bars, start=1)] == [True] * 3

    again = papermill(NOTEBOOK, tmp_path / "again.ipynb", "--cwd", "notebooks", *arguments)
    assert again.returncode == 0
    assert json.loads((run / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("epoch", 5), ("resume", "maybe"), ("device", "tpu")])
def test_bad_parameter_ends_papermill_with_one_sentence(tmp_path, name, value):
    run = tmp_path / "run"
    done = papermill(
        NOTEBOOK, tmp_path / "out.ipynb", "--cwd", "notebooks", *parameters(run_dir=run), "-p", name, value
    )
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ParameterError: {name} is {value!r}")
    assert last.endswith(".")
    assert not run.exists()


def test_a_foreign_run_dir_ends_papermill_with_one_sentence_and_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("mine")
    done = papermill(NOTEBOOK, tmp_path / "out.ipynb", "--cwd", "notebooks", *parameters(run_dir=tmp_path))
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ParameterError: run_dir is '{tmp_path}', which holds other files")
    assert {p.name for p in tmp_path.iterdir()} == {"thesis.tex", "out.ipynb"}


def test_help_explains_every_parameter_with_its_type():
    shown = papermill("--help-notebook", NOTEBOOK).stdout
    assert "Unknown type" not in shown
    for name, field in FIELDS.items():
        kind = "str" if field.metadata["kind"] is tuple else field.metadata["kind"].__name__
        assert f"  {name}: {kind} (default" in shown
        assert field.metadata["help"].split(";")[0][:40] in " ".join(shown.split())


def nbval(tree) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--nbval", "notebooks/08_full_run.ipynb"]
    return subprocess.run(command, cwd=tree, env=environment(PYTHONPATH=str(tree)), capture_output=True, text=True)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [("metrics.json", '"kl_uniform": 0.', '"kl_uniform": 1.'), ("history.csv", "\n200,3,", "\n200,2,")],
)
def test_changing_a_number_of_the_reference_run_makes_nbval_fail(tmp_path, file, old, new):
    for part in ("notebooks", "tvae_lib", "results", "pyproject.toml", "tests/conftest.py", "tests/shared.py"):
        source, target = ROOT / part, tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    path = tmp_path / REFERENCE.relative_to(ROOT) / file
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new, 1))
    done = nbval(tmp_path)
    assert done.returncode == 1
    assert "mismatch" in done.stdout
