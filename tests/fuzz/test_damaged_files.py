"""Whatever happens to files: they are shown as they were made, or not at all, and nothing of the user's is lost."""

import json
import os
import shutil
from collections import Counter

import pandas as pd
import pytest
from attempts import SCALE
from shared import SAME, start

from studies import tables, whole_runs
from studies.catalogue import STUDIES
from tvae_lib.errors import UserError
from tvae_lib.runs.directory import FILES, Run
from tvae_lib.runs.files import read_sealed

MINE = {
    "thesis.tex": "mine",
    ".backup.tmp": "mine",
    "nested/.history.csv.01234567.tmp": "mine",
    "snapshots/notes": "mine",
}


def truncate(dice, path, other):
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content) + 1)])


def flip(dice, path, other):
    content = bytearray(path.read_bytes())
    for _ in range(dice.choice([1, 1, 3, 50])):
        if content:
            content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def scribble(dice, path, other):
    texts = [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"null",
        b"[" * 100_000,
        b"\xff\xfe",
        dice.randbytes(200),
        b'{"format": 2}',
        b"a,b\n1\n",
    ]
    path.write_bytes(dice.choice(texts))


def delete(dice, path, other):
    path.unlink()


def exchange(dice, path, other):
    """For the same file of another run, or another file of this one."""
    sources = [other / path.name, *path.parent.glob("*.*")]
    source = dice.choice([source for source in sources if source.is_file()])
    if source != path:
        shutil.copy(source, path)


def folder(dice, path, other):
    path.unlink()
    path.mkdir()


def pipe(dice, path, other):
    path.unlink()
    os.mkfifo(path)


def link(dice, path, other):
    """To a file of the user's, or to nothing."""
    path.unlink()
    path.symlink_to(dice.choice([other / path.name, path.parent / "nowhere", path]))


def edit(dice, path, other):
    """A value of a JSON file, or a cell of a table."""
    if path.suffix == ".json":
        value = json.loads(path.read_bytes())
        key = dice.choice([*value])
        value[key] = dice.choice([None, 5, -1, "x", [], {}, 10**400, [1] * 5])
        path.write_text(json.dumps(value))
    elif path.suffix == ".csv":
        text = path.read_text().split(",")
        text[dice.randrange(len(text))] = dice.choice(["nan", "0.5", "", "x", '"'])
        path.write_text(",".join(text))
    else:
        flip(dice, path, other)


DAMAGES = (truncate, flip, scribble, delete, exchange, folder, pipe, link, edit)


def contents(place):
    """Every regular file below a folder, with what it holds; links and what is no file by their kind."""
    found = {}
    for path in sorted(place.rglob("*")):
        if path.name != ".lock":
            regular = path.is_file() and not path.is_symlink()
            found[path.relative_to(place)] = path.read_bytes() if regular else os.lstat(path).st_mode
    return found


def is_told(error):
    return "\n" not in str(error) and str(error).endswith(".")


def results_of(run):
    """What a finished run shows, but for the digests of files that may be missing, as snapshots may."""
    metrics = {name: value for name, value in run.metrics.items() if name != "files"}
    return {name: (run.path / name).read_bytes() for name in SAME if name != "metrics.json"} | {"metrics": metrics}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, one that was killed behind its checkpoint, one of fewer epochs, and one of another seed."""
    place = tmp_path_factory.mktemp("runs")
    other, short = start(place / "other", seed=1), start(place / "short", epochs=2)
    whole = start(place / "whole")
    shutil.copytree(whole.path, place / "killed")
    for name in ("metrics.json", "model.safetensors", "evaluations.safetensors"):
        (place / "killed" / name).unlink()
    return {"whole": whole.path, "killed": place / "killed", "short": short.path}, other.path, results_of(whole)


def test_damaged_run_directories(runs, tmp_path, dice):
    bases, other, expected = runs
    seen = Counter()
    theirs = contents(other)
    for number in range(round(200 * SCALE)):
        path = tmp_path / str(number)
        shutil.copytree(dice.choice([*bases.values()]), path)
        for name in MINE:
            (path / name).parent.mkdir(exist_ok=True)
            (path / name).write_text(MINE[name])
        done = []
        for _ in range(dice.choice([1, 1, 1, 2])):
            files = [p for p in path.rglob("*") if p.is_file() and not p.is_symlink()]
            ours = [p for p in files if p.name in FILES or p.name.startswith("epoch_")]
            if ours:
                damage, target = dice.choice(DAMAGES), dice.choice(sorted(ours))
                done.append(f"{damage.__name__} {target.relative_to(path)}")
                damage(dice, target, other)
        before = contents(path)
        try:
            run = start(path)
        except UserError as error:
            seen["refused" if is_told(error) and contents(path) == before else f"badly refused: {done}"] += 1
        except BaseException as error:
            raise AssertionError(f"attempt {number}: {done}") from error
        else:
            seen["shown"] += 1
            assert {k: v for k, v in results_of(run).items() if k != "metrics"} == {
                k: v for k, v in expected.items() if k != "metrics"
            }, done
            assert results_of(run)["metrics"] == expected["metrics"], done
        assert all((path / name).read_text() == text for name, text in MINE.items()), done
        assert contents(other) == theirs, done
    assert set(seen) == {"refused", "shown"}, seen


def test_damaged_results(tmp_path, monkeypatch, dice):
    place = tmp_path / "results"
    shutil.copytree(tables.FOLDER, place / "experiments")
    for setting in ("document", "latent-2"):
        shutil.copytree(whole_runs.RESULTS / setting, place / "sweep" / setting)
    names = [name for name in STUDIES if name in ("sobol", "rate", "generators")]

    def read():
        """Everything that a chapter reads, or the sentences instead."""
        found = {}
        reads = {name: (tables.read, name) for name in names}
        reads |= {f"{s} of {f.__name__}": (f, s) for s in ("document", "latent-2") for f in READERS}
        for key, (function, argument) in reads.items():
            try:
                found[key] = function(argument)
            except UserError as error:
                found[key] = None if is_told(error) else error
        return found

    monkeypatch.setattr(tables, "FOLDER", place / "experiments")
    monkeypatch.setattr(whole_runs, "RESULTS", place / "sweep")
    expected, kept, refused = read(), contents(place), 0
    assert all(value is not None for value in expected.values())
    read_there = [path for path in kept if path.stem in (*names, "made") or path.parts[0] == "sweep"]
    files = sorted(path for path in read_there if isinstance(kept[path], bytes))
    for number in range(round(100 * SCALE)):
        target, damage = place / dice.choice(files), dice.choice(DAMAGES)
        damage(dice, target, place / "sweep" / "latent-2")
        before = contents(place)
        try:
            found = read()
        except BaseException as error:
            raise AssertionError(f"attempt {number}: {damage.__name__} {target}") from error
        for key, value in found.items():
            same = value is None or (
                value.equals(expected[key]) if isinstance(value, pd.DataFrame) else value == expected[key]
            )
            assert same, f"attempt {number}: {damage.__name__} {target}: {key}"
        refused += any(value is None for value in found.values())
        assert contents(place) == before
        if target.is_dir() and not target.is_symlink():
            target.rmdir()
        else:
            target.unlink(missing_ok=True)
        target.write_bytes(kept[target.relative_to(place)])
    assert refused > 0


READERS = (whole_runs.summaries, whole_runs.evaluations)


def test_what_is_sealed_says_so():
    """The attempts above are worth something only where there is something to break."""
    path = whole_runs.RESULTS / "document" / "seed0.json"
    assert read_sealed(path)["seed"] == 0
    assert len(Run(tables.ROOT / "results" / "reference").metrics["files"]) > 8
