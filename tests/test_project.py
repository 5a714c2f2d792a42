"""The files around the code: environments, notebooks, the book."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from html import unescape
from importlib import metadata
from pathlib import Path

import nbformat
import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import tvae_lib
from tvae_lib.runs.directory import Run
from tvae_lib.training.config import FIELDS, REFERENCE, ROOT
from tvae_lib.training.state import HISTORY

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
PACKAGES = ("tvae_lib", "studies")
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
ASKED_FOR = {"jupyter", "jupyter-book", "torch", "matplotlib", "seaborn", "nbval", "papermill"}


def pins(lines) -> dict[str, str]:
    named = (line.partition("#")[0].strip() for line in lines if not line.startswith("--"))
    parsed = [Requirement(line) for line in named if line]
    return {canonicalize_name(r.name): str(r.specifier) for r in parsed}


def test_environment_files_agree():
    requirements = pins((ROOT / "requirements.txt").read_text().splitlines())
    assert all(re.fullmatch(r"==[\w.]+", spec) for spec in requirements.values())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    for requirement in map(Requirement, asked):
        pinned = requirements[canonicalize_name(requirement.name)].removeprefix("==")
        assert requirement.specifier.contains(pinned), requirement
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    pip = next(d["pip"] for d in environment["dependencies"] if isinstance(d, dict))
    by_name = pins(pip)
    assert set(by_name) == {canonicalize_name(Requirement(d).name) for d in asked}
    assert by_name.items() <= requirements.items()
    assert {"--constraint requirements.txt", "--editable ."} == {line for line in pip if line.startswith("--")}
    assert set(requirements) >= ASKED_FOR


def needed(asked: list[str]) -> set[str]:
    """The distributions that these requirements ask for, and what the installed ones need, with their extras."""
    found, waiting = set(), [Requirement(line) for line in asked]
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras} - {e for n, e in found if n == name}:
            found.add((name, extra))
            lines = map(Requirement, metadata.requires(name) or [])
            waiting += [r for r in lines if not r.marker or r.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def test_requirements_are_what_the_project_needs_and_no_more():
    pinned = set(pins((ROOT / "requirements.txt").read_text().splitlines()))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    asked = project["dependencies"] + [d for extra in project["optional-dependencies"].values() for d in extra]
    closed = needed(asked)
    assert {name for name in closed - pinned if not name.startswith(("nvidia", "triton", "cuda"))} == set()
    assert pinned - closed == set()


def test_every_import_of_the_library_is_a_declared_dependency():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = {canonicalize_name(Requirement(d).name) for d in project["dependencies"]}
    known = sys.stdlib_module_names | set(PACKAGES)
    for path in MODULES:
        others = {"pyro", "pythae"} if path.stem == "peers" else set()  # which are compared with, where they are
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in (n.split(".")[0] for n in names):
                name = {"yaml": "pyyaml"}.get(name, name)
                assert name in known | others or canonicalize_name(name) in declared, name


def test_an_import_turned_round_is_noticed(tmp_path):
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    command = [Path(sys.executable).parent / "lint-imports", "--no-cache"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path)}
    assert subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True).returncode == 0
    with open(tmp_path / "tvae_lib" / "system" / "vae.py", "a", encoding="utf-8") as module:
        module.write("\nimport tvae_lib.runs.files  # noqa\n")
    turned = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert turned.returncode == 1
    assert "tvae_lib.system is not allowed to import tvae_lib.runs" in turned.stdout


def public_names(path: Path) -> set[str]:
    """What a module defines for others: its functions, its classes and its own name."""
    definitions = (ast.FunctionDef, ast.ClassDef)
    names = {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, definitions)}
    return {name for name in names if not name.startswith("_")} | {path.stem}


def test_no_public_name_is_defined_twice():
    homes: dict[str, list[str]] = {}
    # A fused piece bears the name of the plain function that it stands for.
    for path in (path for path in MODULES if not path.stem.startswith("__") and path.parent.name != "fused"):
        for name in public_names(path):
            homes.setdefault(name, []).append(str(path.relative_to(ROOT)))
    assert {name: paths for name, paths in homes.items() if len(paths) > 1} == {}


def test_every_package_is_installed():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted({".".join(path.relative_to(ROOT).parent.parts) for path in MODULES})


def test_versions_agree():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == tvae_lib.__version__
    cited = (ROOT / "book" / "references.md").read_text()
    fields = dict(re.findall(r"^  (\w+) += \{(.*)\},$", cited, re.MULTILINE))
    assert fields["version"] == citation["version"]
    assert fields["title"].replace("{", "").replace("}", "") == citation["title"]
    assert fields["author"].strip("{}") == citation["authors"][0]["name"]
    assert fields["year"] == str(citation["date-released"])[:4]


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


def test_pages_bring_no_icons_that_they_do_not_draw_and_the_words_that_the_search_shows(html):
    static = html / "_static"
    assert (static / "scripts" / "fontawesome.js").stat().st_size < 100
    drawn = set(re.findall(r"\.(fa-[a-z-]+)", (static / "icons.css").read_text()))
    used = {name for path in html.rglob("*.html") for name in re.findall(r"[ \"](fa-[a-z-]+)", path.read_text())}
    assert used - {"fa-solid", "fa-brands"} <= drawn
    texts = json.loads((static / "page_texts.js").read_text().removeprefix("const pageTexts = ").rstrip(";\n"))
    assert {"book/index", "notebooks/01_operations", "book/library_system"} <= set(texts)
    assert "collector" in texts["notebooks/01b_coverage"] + texts["notebooks/01_operations"]


def test_no_page_is_heavy(html):
    heavy = {path.name: path.stat().st_size for path in html.rglob("*.html") if path.stat().st_size > 1.5e6}
    assert heavy == {}


def test_what_a_published_book_needs_is_there(html):
    page = (html / "book" / "index.html").read_text()
    assert re.search(r'<meta content="A dual variational autoencoder [^"]+" lang="en" name="description"', page)
    assert 'property="og:title"' in page
    assert re.search(r'<link rel="icon" href="[^"]*favicon.svg', page)
    assert "No such page" in (html / "404.html").read_text()
    assert not (html / "sitemap.xml").exists()  # as long as nobody has said where the book is


def test_the_standard_command_builds_the_book_too(tmp_path):
    for part in ("_config.yml", "_toc.yml", "book", "notebooks", "tvae_lib", "studies"):
        source = ROOT / part
        shutil.copytree(source, tmp_path / part) if source.is_dir() else shutil.copy(source, tmp_path)
    config = (tmp_path / "_config.yml").read_text()
    (tmp_path / "_config.yml").write_text(config.replace('baseurl: ""', "baseurl: https://example.org/book/"))
    shutil.copy(ROOT / "book" / "_static" / "favicon.svg", tmp_path / "book" / "_static" / "course.png")
    command = [Path(sys.executable).parent / "jupyter-book", "build", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    built = tmp_path / "_build" / "html"
    address = "https://example.org/book/book/system.html"
    assert f'<link rel="canonical" href="{address}"' in (built / "book" / "system.html").read_text()
    picture = '<meta property="og:image" content="https://example.org/book/_static/course.png" />'
    assert picture in (built / "book" / "system.html").read_text()
    assert f"<loc>{address}</loc>" in (built / "sitemap.xml").read_text()
    assert (built / "_static" / "mathjax" / "tex-mml-chtml.js").exists()
    assert 'src="../_static/mathjax/tex-mml-chtml.js"' in (built / "book" / "system.html").read_text()


def test_every_make_command_that_is_named_does_something():
    makefile = (ROOT / "Makefile").read_text()
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, re.M)
    rules = set(re.findall(r"^(\w+):.*\n\t", makefile, re.M))
    told = [ROOT / name for name in ("README.md", "CONTRIBUTING.md")] + sorted((ROOT / "book").glob("*.md"))
    named = {name for path in told for name in re.findall(r"`make (\w+)", path.read_text(encoding="utf-8"))}
    assert "pdf" in named
    assert named | set(phony.split()) <= rules


def test_windows_itself_is_refused_with_what_works_instead():
    script = "import os; os.name = 'nt'; import tvae_lib"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    last = "ImportError: tvae_lib runs on Linux, on macOS, and on Windows inside WSL; this is Windows itself."
    assert done.stderr.splitlines()[-1] == last


def test_installed_elsewhere_runs_belong_to_the_working_directory(tmp_path):
    for part in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE"):
        source, target = ROOT / part, tmp_path / "source" / part
        target.parent.mkdir(exist_ok=True)
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--target", tmp_path / "site", tmp_path / "source"], check=True, capture_output=True)
    (tmp_path / "work").mkdir()
    script = "from tvae_lib.runs.status import run_path; from tvae_lib.training.config import make_config; "
    script += "from studies import tables, whole_runs; print(run_path(make_config()), whole_runs.RUNS, tables.FOLDER)"
    shadow = os.environ | {"PYTHONPATH": str(tmp_path / "site"), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path / "work", env=shadow, capture_output=True, text=True
    )
    work = (tmp_path / "work").resolve()
    assert done.stdout.split() == [str(work / "runs" / "document-seed0"), "runs/studies", "results/experiments"], done


def test_generated_pages_do_not_depend_on_the_locale():
    ascii_alone = os.environ | {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    command = [sys.executable, ROOT / "book" / "generate.py", "--check"]
    done = subprocess.run(command, env=ascii_alone, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_builds_leave_is_ignored():
    names = ["build/lib", "dist/x.whl", "_build/html", "runs/x", ".venv/x", "tvae_book.egg-info/x", ".snakemake/x"]
    done = subprocess.run(["git", "check-ignore", *names], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout.split() == names or not (ROOT / ".git").exists()


def test_howto_describes_every_column_of_the_history(html):
    page = unescape((html / "book" / "howto.html").read_text())
    for name in HISTORY:
        assert f">{name}<" in page, name


def test_workflow_pins_its_actions_by_commit_and_asks_for_little():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())
    uses = [step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"actions/[\w-]+@[0-9a-f]{40}", action) for action in uses)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["jobs"]["deploy"]["permissions"] == {"pages": "write", "id-token": "write"}
    assert "permissions" not in workflow["jobs"]["test"] | workflow["jobs"]["pages"]


def test_workflow_publishes_what_is_tested_and_builds_the_pages_without_torch():
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "publish.yml").read_text())["jobs"]
    assert set(jobs["deploy"]["needs"]) == {"test", "pages"}
    commands = "".join(step.get("run", "") for step in jobs["pages"]["steps"])
    assert "make" not in commands
    assert "--constraint requirements.txt" in commands
    book = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["book"]
    assert "torch" not in needed(book)


def test_what_a_maintainer_sets_before_the_first_publication_is_said():
    for name in (".github/workflows/publish.yml", "CONTRIBUTING.md"):
        text = (ROOT / name).read_text()
        assert re.search(r"Settings.*Pages.*Source.*GitHub Actions", text), name
        assert "PIP_EXTRA_INDEX_URL" in text, name


def test_set_up_shows_what_it_installs_and_ends_with_what_is_ready():
    said = subprocess.run(["make", "-n", "-B", "setup"], cwd=ROOT, capture_output=True, text=True).stdout
    (install,) = (line for line in said.splitlines() if "-r requirements.txt" in line)
    assert "pip install" in install
    assert "--quiet" not in install
    assert said.index(install) < said.index("Ready in .venv") < said.index("Next: make run")


def test_make_lists_its_commands():
    listed = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True).stdout
    for command in ("run", "test", "gpu", "clean", "book"):
        assert re.search(rf"^{command}\s+\w", listed, re.MULTILINE), command
    assert Path(ROOT / ".ci" / "run").stat().st_mode & 0o111


def test_every_listed_mutation_still_has_its_place_in_the_code():
    mutations = yaml.safe_load((ROOT / "tests" / "mutations.yml").read_text())
    assert len(mutations) >= 30
    for mutation in mutations:
        text = (ROOT / mutation["file"]).read_text()
        assert text.count(mutation["find"]) == 1, mutation
        assert mutation["put"] not in text, mutation
