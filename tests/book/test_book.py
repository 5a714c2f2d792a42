"""The machinery that keeps the book true: equation index, ledger, generated pages."""

import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tvae_lib.ledger import DEPENDS, MIME, VERDICTS, verdict
from tvae_lib.training.config import ROOT

sys.path.insert(0, str(ROOT / "book"))
import generate

CLAIMS = yaml.safe_load((ROOT / "book" / "claims.yml").read_text())


def page(text="", cells=()):
    return generate.Page("../notebooks/x", "X", text, list(cells))


def declared(**changes):
    bundle = verdict("P1", "holds", "It is so.", "thm-x")._repr_mimebundle_()
    bundle[MIME] |= changes
    return {
        "cell_type": "code",
        "source": [],
        "metadata": {},
        "outputs": [{"output_type": "display_data", "data": bundle}],
    }


def test_generated_pages_are_fresh_and_nothing_is_orphaned():
    done = subprocess.run([sys.executable, ROOT / "book" / "generate.py", "--check"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_page_that_is_not_fresh_is_noticed(tmp_path):
    for part in ("book", "notebooks", "tvae_lib", "studies"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "book" / "claims.md"
    path.write_text(path.read_text().replace("**Refuted.**", "**Proved.**", 1))
    command = [sys.executable, tmp_path / "book" / "generate.py"]
    done = subprocess.run([*command, "--check"], capture_output=True, text=True)
    assert done.returncode == 1
    assert "claims.md" in done.stderr
    assert subprocess.run(command).returncode == 0
    assert path.read_text() == (ROOT / "book" / "claims.md").read_text()


@pytest.mark.parametrize(
    ("labels", "named", "problem"),
    [
        (["eq-a"], [], "eq-a has no function that names it"),
        ([], ["eq-a"], "m.f names eq-a, which no page has"),
        (["eq-a", "eq-a"], ["eq-a"], "eq-a stands 2 times"),
        (["eq-a"], ["eq-a"], None),
    ],
)
def test_orphans_on_either_side_are_found(labels, named, problem):
    text = "\n".join(f"```{{math}}\n:label: {label}\nx\n```" for label in labels)
    found = generate.orphans([page(text)], [generate.Function(Path("m.py"), "f", named)])
    assert found == ([problem] if problem else [])


def test_labels_of_the_docstrings_are_read():
    named = {f"{f.module.stem}.{f.name}": f.labels for f in generate.functions()}
    assert named["operations.index_of"] == ["eq-index"]
    assert named["trainer.Trainer.gradient_shares"] == ["eq-share"]
    assert sum(len(labels) for labels in named.values()) >= 35


def test_every_labelled_equation_is_named_with_its_source():
    for function in generate.functions():
        if function.labels:
            found = importlib.import_module(".".join(function.module.with_suffix("").parts))
            for name in function.name.split("."):
                found = getattr(found, name)
            assert "Source: " in found.__doc__, function


def test_every_module_is_on_the_library_page():
    of_library = {p.relative_to(ROOT) for p in (ROOT / "tvae_lib").rglob("*.py") if p.stem != "__init__"}
    assert {module for module in generate.MODULES if module.parts[0] == "tvae_lib"} == of_library


@pytest.mark.parametrize(
    ("text", "changes", "problem"),
    [
        (":label: thm-x", {}, None),
        ("", {}, "P1: the evidence 'thm-x' is not in ../notebooks/x"),
        (":label: thm-x", {"verdict": "true"}, "P1: 'true' is no verdict"),
        (":label: thm-x", {"claim": "Z9"}, "Z9 has a verdict but is no claim of claims.yml"),
    ],
)
def test_verdicts_need_a_claim_a_word_and_evidence(text, changes, problem):
    found = generate.verdicts([page(text, [declared(**changes)])])
    assert generate.wrong_verdicts(CLAIMS, found) == ([problem] if problem else [])


def test_two_verdicts_on_one_claim_are_refused():
    found = generate.verdicts([page(":label: thm-x", [declared(), declared()])])
    assert generate.wrong_verdicts(CLAIMS, found) == ["P1 has 2 verdicts; one chapter gives it"]


@pytest.mark.parametrize(
    "arguments", [("P1", "true", "x", "fig"), ("P1", "holds", " ", "fig"), ("P1", "holds", "x", "")]
)
def test_a_verdict_without_word_finding_or_evidence_is_refused(arguments):
    with pytest.raises(ValueError, match="P1"):
        verdict(*arguments)


def test_a_verdict_that_turns_with_a_reading_says_so():
    turned = {"R1": {"hard": ("holds", "97 %"), "soft": ("refuted", "82 %")}}
    alike = {"R3": {"sampled": ("holds", "97 %"), "rounded": ("holds", "96 %")}}
    assert verdict("C1", DEPENDS, "It is so.", "fig", turned | alike).under == turned | alike
    assert verdict("C1", "holds", "It is so.", "fig", alike).verdict == "holds"
    for word, under in (("holds", turned), ("refuted", turned), (DEPENDS, alike), ("refuted", alike)):
        with pytest.raises(ValueError, match="its readings give"):
            verdict("C1", word, "It is so.", "fig", under)


@pytest.mark.parametrize("options", [["soft"], ["soft", "hard"], ["hard", "quiet"], []])
def test_readings_are_those_of_the_list_the_base_first(options):
    with pytest.raises(ValueError, match="C1 is judged under R1"):
        verdict("C1", "holds", "It is so.", "fig", {"R1": dict.fromkeys(options, ("holds", "97 %"))})


def test_claim_by_reading_is_a_table_with_a_figure_in_each_cell():
    under = {"R1": {"hard": ("holds", "97 %"), "soft": ("refuted", "|τ| 82 %")}}
    text = generate.readings(CLAIMS, generate.verdicts([page("", [declared(verdict=DEPENDS, under=under)])]))
    assert "| {ref}`P1 <claim-p1>` | **holds**: 97 % | **refuted**: \\|τ\\| 82 % |" in text
    text_of_ledger = generate.ledger(CLAIMS, generate.verdicts([page("", [declared(verdict=DEPENDS, under=under)])]))
    assert "**Depends on the reading, R1: holds (hard); refuted (soft).** " in text_of_ledger
    assert "1 claims were judged under others too, and\n1 verdicts turn with one" in text


def test_registry_has_every_claim_once_with_a_chapter_and_a_source():
    ids = [claim["id"] for claim in CLAIMS]
    series = {"P": 5, "V": 5, "D": 11, "X": 18, "S": 10, "L": 10, "F": 16, "C": 9, "G": 3}
    assert sorted(ids) == sorted(f"{letter}{n}" for letter, count in series.items() for n in range(1, count + 1))
    assert all(set(claim) - {"open"} == {"id", "chapter", "source", "claim"} for claim in CLAIMS)
    assert [claim["id"] for claim in CLAIMS if claim.get("open")] == []


def test_claims_of_a_written_chapter_are_decided():
    decided = {}
    for found in generate.pages():
        for name in generate.verdicts([found]):
            decided[name] = int(found.link.split("/")[-1][:2])
    written = set(decided.values())
    for claim in CLAIMS:
        if claim["chapter"] in written:
            assert decided.get(claim["id"]) == (None if claim.get("open") else claim["chapter"]), claim["id"]


def test_ledger_lists_open_claims_as_open():
    text = generate.ledger(CLAIMS, {})
    assert all(f"**{claim['id']}**, open." in text for claim in CLAIMS)
    assert not any(f"| {word} |" in text for word in VERDICTS)


def test_performance_page_shows_what_was_measured_and_says_what_missed_its_target():
    measured = json.loads((ROOT / "benchmarks" / "results" / "cpu.json").read_text())["ratios"]
    cells = json.loads((ROOT / "notebooks" / "performance.ipynb").read_text())["cells"]
    tables = [output.get("data", {}).get("text/html", []) for cell in cells for output in cell.get("outputs", [])]
    rows = re.findall(r"<tr>.*?</tr>", "".join(line for table in tables for line in table), re.DOTALL)
    for name, value in measured.items():
        row = next(row for row in rows if f"<td>{name}</td>" in row)
        assert f"<td>{value:.2f}</td>" in row
        bound, target = re.search(r"<td>(at least|at most) ([\d.]+)</td>", row).groups()
        is_met = value >= float(target) if bound == "at least" else value <= float(target)
        assert (f"<td>{'met' if is_met else 'missed'}</td>") in row
