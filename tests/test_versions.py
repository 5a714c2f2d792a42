"""Which Pythons are supported is said in pyproject.toml: the pins hold on all of them, the other files say the same."""

import re
import sys
import tomllib
from importlib import metadata

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

from tvae_lib.training.config import ROOT


def text(name: str) -> str:
    return (ROOT / name).read_text()


PYPROJECT = tomllib.loads(text("pyproject.toml"))
REQUIRED = SpecifierSet(PYPROJECT["project"]["requires-python"])
BOUNDS = {bound.operator: Version(bound.version) for bound in REQUIRED}
LOWEST, END = BOUNDS[">="], BOUNDS["<"]
SPAN = f"{LOWEST} to {END.major}.{END.minor - 1}"
PYTHONS = [f"3.{minor}.{patch}" for minor in range(8, 20) for patch in range(31)]
PROGRAM = re.compile(r"\$\(PYTHON\) -c '(import sys[^']*)'")


def pinned() -> dict[str, str]:
    lines = (line.partition("#")[0].strip() for line in text("requirements.txt").splitlines())
    return {r.name: str(r.specifier).removeprefix("==") for r in map(Requirement, filter(None, lines))}


def test_the_supported_pythons_go_from_a_patch_to_the_end_of_a_minor_version():
    assert set(BOUNDS) == {">=", "<"}
    assert len(LOWEST.release) == 3
    assert len(END.release) == 2
    assert "{}.{}.{}".format(*sys.version_info) in REQUIRED, "the tests run on another one"


def test_every_pin_holds_on_every_supported_python():
    assert {name: Version(metadata.version(name)).public for name in pinned()} == pinned(), "run make setup"
    refused = {}
    for name in pinned():
        required = SpecifierSet(metadata.metadata(name).get("Requires-Python") or "")
        refused[name] = [python for python in PYTHONS if python in REQUIRED and python not in required]
    assert {name: pythons for name, pythons in refused.items() if pythons} == {}


def verdict(monkeypatch, python: str) -> str | None:
    """What the Makefile's check ends with on that Python; None where it lets it pass."""
    (program,) = PROGRAM.findall(text("Makefile"))
    with monkeypatch.context() as patch:
        patch.setattr(sys, "version_info", (*map(int, python.split(".")), "final", 0))
        try:
            exec(program.replace("$(PYTHON)", "python3"), {})
        except SystemExit as stop:
            return stop.code
    return None


def test_make_lets_the_supported_pythons_pass_and_no_others(monkeypatch):
    passed = [python for python in PYTHONS if verdict(monkeypatch, python) is None]
    assert passed == [python for python in PYTHONS if python in REQUIRED]


@pytest.mark.parametrize("python", ["2.7.18", "3.8.18", "3.11.1", "3.14.0", "3.15.2"])
def test_make_says_in_one_sentence_what_is_needed_and_what_it_found(monkeypatch, python):
    sentence = verdict(monkeypatch, python)
    assert f"Python {SPAN} is needed" in sentence
    assert f"python3 is {python};" in sentence
    assert "\n" not in sentence


def test_the_check_of_make_reads_the_version_alone_and_parses_on_any_python():
    (program,) = PROGRAM.findall(text("Makefile"))
    assert set(re.findall(r"\bimport (\w+)|\bsys\.(\w+)", program)) == {("sys", ""), ("", "version_info"), ("", "exit")}
    assert 'f"' not in program, "Python 2 and 3.5 know no f-strings"


def test_readme_says_which_pythons_and_which_systems():
    assert f"Python {SPAN} " in text("README.md")
    rows = re.findall(r"^\| (Linux|macOS|Windows)\b", text("README.md"), re.MULTILINE)
    assert rows == ["Linux", "macOS", "Windows"]


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "book/howto.md"])
def test_pages_name_no_other_span_of_pythons(name):
    spans = re.findall(r"Python (3[.\d]*\d (?:to 3[.\d]*\d|(?:or|and) (?:newer|later)))", text(name))
    assert set(spans) <= {SPAN}


def test_what_picks_a_python_picks_a_supported_one():
    dependencies = yaml.safe_load(text("environment.yml"))["dependencies"]
    picked = [line.removeprefix("python=") for line in dependencies if str(line).startswith("python=")]
    jobs = yaml.safe_load(text(".github/workflows/publish.yml"))["jobs"].values()
    steps = [step for job in jobs for step in job["steps"] if "setup-python" in step.get("uses", "")]
    picked += [step["with"]["python-version"] for step in steps]
    assert len(picked) > 1
    assert all(minor + ".99" in REQUIRED for minor in picked), picked


def test_the_code_is_checked_for_the_lowest_python():
    lowest = f"{LOWEST.major}.{LOWEST.minor}"
    assert PYPROJECT["tool"]["mypy"]["python_version"] == lowest
    assert PYPROJECT["tool"]["ruff"]["target-version"] == "py" + lowest.replace(".", "")
