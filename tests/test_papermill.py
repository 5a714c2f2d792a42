"""The full-run notebook from outside: papermill as an experimenter calls it, nbval as a maintainer does."""

import copy
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbclient import NotebookClient
from shared import start

from tvae_lib.runs.files import read_sealed, write_sealed
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

    again = papermill(NOTEBOOK, tmp_path / "again.ipynb", "--cwd", "notebooks", "--inject-paths", *arguments)
    assert again.returncode == 0, again.stderr[-3000:]
    assert json.loads((run / "metrics.json").read_text()) == metrics


@pytest.mark.parametrize(("name", "value"), [("epochs", 0), ("ephocs", 5), ("resume", "maybe"), ("device", "tpu")])
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
    (error,) = (o for cell in nbformat.read(tmp_path / "out.ipynb", 4).cells for o in errors_of(cell))
    assert error["traceback"] == [last], "a notebook shows the sentence alone"


def errors_of(cell):
    """The errors that a cell ended in."""
    return [o for o in cell.get("outputs", []) if o["output_type"] == "error"]


def test_all_cells_run_again_in_one_kernel():
    notebook = nbformat.read(NOTEBOOK, 4)
    notebook.cells = [*notebook.cells, *copy.deepcopy(notebook.cells)]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
    client = NotebookClient(notebook, resources={"metadata": {"path": str(ROOT / "notebooks")}})
    client.execute(env=environment(TVAE_SHOW_REFERENCE="1"))
    printed = [o.get("text") for cell in notebook.cells for o in cell.get("outputs", []) if o.get("text")]
    assert printed[: len(printed) // 2] == printed[len(printed) // 2 :]


def test_caches_that_cannot_be_written_do_not_make_nbval_fail():
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--nbval",
        "notebooks/01_operations.ipynb",
    ]
    shadow = environment(MPLCONFIGDIR=os.devnull + "/none", TVAE_SHOW_REFERENCE="1")
    done = subprocess.run(command, cwd=ROOT, env=shadow, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]


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


@pytest.fixture
def tree(tmp_path):
    """What nbval needs of the project, to be changed."""
    for part in ("notebooks", "tvae_lib", "results", "pyproject.toml", "tests/conftest.py", "tests/shared.py"):
        source, target = ROOT / part, tmp_path / part
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return tmp_path


def test_changing_a_number_of_the_reference_run_makes_nbval_fail(tree):
    path = tree / REFERENCE.relative_to(ROOT) / "metrics.json"
    metrics = read_sealed(path)
    metrics["A"]["kl_uniform"] += 0.5
    write_sealed(path, metrics)
    done = nbval(tree)
    assert done.returncode == 1
    assert "mismatch" in done.stdout


def test_changing_a_number_alone_makes_nbval_fail_with_the_sentence_that_names_the_file(tree):
    path = tree / REFERENCE.relative_to(ROOT) / "history.csv"
    content = path.read_text()
    assert "\n200,3," in content
    path.write_text(content.replace("\n200,3,", "\n200,2,", 1))
    done = nbval(tree)
    assert done.returncode == 1
    assert "history.csv' is not what the run wrote, as its digest shows" in done.stdout


def test_runs_are_compared_by_papermill_finished_or_not(tmp_path):
    notebook, out = ROOT / "notebooks" / "12_compare.ipynb", tmp_path / "out.ipynb"
    start(tmp_path / "one-seed0")
    start(tmp_path / "one-seed1", seed=1, epochs=3)
    runs = ",".join(f"{tmp_path}/one-seed{seed}" for seed in (0, 1)) + ",reference"
    done = papermill(notebook, out, "--cwd", "notebooks", *parameters(runs=runs, metrics="kl_uniform,ce"))
    assert done.returncode == 0, done.stderr[-3000:]
    printed = "".join(o.get("text", "") for cell in nbformat.read(out, 4).cells for o in cell.get("outputs", []))
    rows = [line.split(",") for line in printed.splitlines() if ",ce,A," in line]
    assert [row[0] for row in rows] == [f"{tmp_path}/one", "reference"]
    assert float(rows[0][4]) > 0


def test_what_cannot_be_compared_ends_papermill_with_one_sentence(tmp_path):
    notebook, out = ROOT / "notebooks" / "12_compare.ipynb", tmp_path / "out.ipynb"
    done = papermill(notebook, out, "--cwd", "notebooks", *parameters(runs="reference,nowhere"))
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith("ParameterError: runs is 'nowhere'")
