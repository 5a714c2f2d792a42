"""The files around the code: environments, notebooks, the book."""

import ast
import re
import subprocess
import sys
import tomllib
from html import unescape
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tvae_lib
from tvae_lib.config import FIELDS, REFERENCE, ROOT
from tvae_lib.runs import Run
from tvae_lib.training import HISTORY

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ASKED_FOR = {"jupyter", "jupyter-book", "torch", "matplotlib", "seaborn", "nbval", "papermill"}


def pins(lines) -> dict[str, str]:
    parsed = [Requirement(line) for line in lines if line and not line.startswith(("#", "--"))]
    return {canonicalize_name(r.name): str(r.specifier) for r in parsed}


def test_environment_files_agree():
    by_name, needed = (ROOT / "requirements.txt").read_text().split("\n\n")
    requirements = pins(by_name.splitlines())
    assert all(re.fullmatch(r"==[\w.]+", spec) for spec in (requirements | pins(needed.splitlines())).values())
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    assert pins(pip) == requirements
    assert {"--constraint requirements.txt", "--editable ."} == {line for line in pip if line.startswith("--")}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    for requirement in map(Requirement, asked):
        pinned = requirements[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(pinned), requirement
    assert set(requirements) >= ASKED_FOR


def test_every_import_of_the_library_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(d).name) for d in project["dependencies"]}
    for path in (ROOT / "tvae_lib").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in (n.split(".")[0] for n in names):
                assert name in sys.stdlib_module_names | {"tvae_lib"} or canonicalize_name(name) in declared, name


ORDER = ["streams", "operations", "vae", "dual", "losses", "config", "training", "runs"]
BESIDE = {
    "schedules": 2.5,
    "statenet": 2.5,
    "replay": 3.5,
    "ensemble": 6.5,
    "single": 6.5,
    "frontier": 2.5,
    "coupling": 3.2,
    "codes": 3.7,
    "laboratory": 4.5,
    "tables": 7.2,
    "convergence": 7.4,
    "rivals": 7.4,
    "phasing": 7.4,
    "experiments": 7.5,
    "sweep": 7.5,
    "evaluation": 3.5,
    "figures": 3.5,
    "ledger": -1,
}


def test_imports_of_the_library_go_one_way():
    rank = {name: i for i, name in enumerate(ORDER)} | BESIDE
    assert set(rank) == {path.stem for path in (ROOT / "tvae_lib").glob("*.py")} - {"__init__"}
    for name, place in rank.items():
        for node in ast.walk(ast.parse((ROOT / "tvae_lib" / f"{name}.py").read_text())):
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("tvae_lib"):
                inner = node.module.removeprefix("tvae_lib").lstrip(".")
                for used in [inner] if inner else [a.name for a in node.names]:
                    assert rank[used] < place, f"{name} imports {used}"


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tvae_lib.__version__


def parameters_cell() -> str:
    notebook = nbformat.read(ROOT / "notebooks" / "08_full_run.ipynb", 4)
    (cell,) = (c for c in notebook.cells if "parameters" in c.metadata.get("tags", []))
    return cell.source


def test_parameters_cell_lists_every_parameter_with_its_type_default_and_meaning():
    lines = parameters_cell().splitlines()
    assert len(lines) == len(FIELDS)
    for line, (name, field) in zip(lines, FIELDS.items(), strict=True):
        rules = field.metadata
        match = re.fullmatch(r"(\w+): (\w+) = (.+?)  # (.+)", line)
        assert match, line
        shown, kind, default, meaning = match.groups()
        assert shown == name
        assert kind == ("str" if rules["kind"] is tuple else rules["kind"].__name__)
        value = ast.literal_eval(default)
        if rules["system"]:
            assert value is None
            shown = f"{field.default:.6g}" if isinstance(field.default, float) else str(field.default)
            assert meaning.endswith(f"(document: {shown})")
        elif rules["kind"] is tuple:
            assert value == ",".join(map(str, field.default))
        else:
            assert value == field.default
        assert meaning.startswith(rules["help"])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_is_executed_and_clean(path):
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    text = path.read_text()
    assert notebook.metadata.kernelspec.display_name
    assert not re.search(r"(?<![\w.])/(home|root|work|Users|tmp)/", text), "a path of the machine it ran on"
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1)), "not executed from top to bottom"
    for cell in cells:
        assert not any(o.output_type == "error" for o in cell.outputs)
        assert not any(o.get("name") == "stderr" for o in cell.outputs)
        if any("image/png" in o.get("data", {}) for o in cell.outputs):
            assert cell.metadata["mystnb"]["image"]["alt"], "a figure without alt text"


def test_book_shows_the_reference_run_and_brings_its_own_mathjax(html):
    page = (html / "notebooks" / "08_full_run.html").read_text()
    assert Run(REFERENCE).config["run_id"] in page
    assert (html / "_static" / "mathjax" / "tex-mml-chtml.js").exists()
    scripts = re.findall(r'<script[^>]*\ssrc="([^"]+)"', page)
    assert scripts
    assert not [s for s in scripts if "//" in s], "a script from another host"


def test_howto_describes_every_column_of_the_history(html):
    page = unescape((html / "book" / "howto.html").read_text())
    for name in HISTORY:
        assert f'"{name}"' in page, name


def test_workflow_pins_its_actions_by_commit_and_asks_for_little():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())
    uses = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in uses)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "permissions" not in workflow["jobs"]["test"]


def test_make_lists_its_commands():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for command in ("run", "test", "gpu", "clean", "book"):
        assert re.search(rf"^{command}\s+\w", listed, re.MULTILINE), command
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_every_listed_mutation_still_has_its_place_in_the_code():
    mutations = yaml.safe_load((ROOT / "tests" / "mutations.yml").read_text())
    assert len(mutations) >= 30
    for mutation in mutations:
        text = (ROOT / "tvae_lib" / mutation["file"]).read_text()
        assert text.count(mutation["find"]) == 1, mutation
        assert mutation["put"] not in text, mutation
