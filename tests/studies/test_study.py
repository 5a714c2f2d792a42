"""How tables are made: part by part, row by row, continued, and left alone where they are whole."""

import dataclasses
import json

import pandas as pd
import pytest
import torch
from shared import is_one_sentence

from studies import study, tables
from studies.study import Study, make_parts, merge, slug, train_cases, train_together
from tvae_lib.errors import FileError, ParameterError
from tvae_lib.runs import files
from tvae_lib.runs.files import sha256, write_json
from tvae_lib.training.config import make_config
from tvae_lib.training.state import initial_state
from tvae_lib.training.trainer import Trainer

NAMES = {"first": ("a", "b"), "second": ("c",)}
SHORT = {"device": "cpu", "holdout": 0.9, "total_epochs": 4, "batch_size": 256}
VARIED = [
    {"seed": 1},
    {"seed": 2, "cross_injection": False, "statenet": "off"},
    {"seed": 2, "alpha_rep": 0.5, "sigma_rep": 4.0, "statenet": "hypergradient", "lr": 0.005},
]


@pytest.fixture
def asked_for() -> list[str]:
    """The cases that `toy` was asked to make."""
    return []


@pytest.fixture
def toy(asked_for) -> Study:
    """Three cases in two parts, two rows each, without a training."""

    def make(cases, device):
        for case in cases:
            asked_for.append(case["name"])
            yield [case | {"epoch": epoch, "value": epoch / 2} for epoch in (1, 2)]

    parts = {part: [{"name": name} for name in names] for part, names in NAMES.items()}
    return Study("toy", ("name", "epoch"), parts, make, lambda case: ({"epoch": 1}, {"epoch": 2}))


@pytest.fixture
def folders(tmp_path):
    """Where tables are, and where parts."""
    (tmp_path / "tables").mkdir()
    return tmp_path / "tables", tmp_path / "parts"


def rows(path) -> list[tuple]:
    return list(pd.read_csv(path)[["name", "epoch"]].itertuples(index=False, name=None))


def test_parts_are_made_and_merged_and_then_nothing_is_lacking(toy, folders, asked_for):
    tables, parts = folders
    assert toy.lacking(tables) == ["first", "second"]
    make_parts(toy, ["second"], *folders)
    assert toy.lacking(tables) == ["first", "second"]
    merge(toy, *folders)
    assert toy.lacking(tables) == ["first"]
    make_parts(toy, ["first"], *folders)
    merge(toy, *folders)
    assert toy.lacking(tables) == []
    assert asked_for == ["c", "a", "b"]
    assert rows(tables / "toy.csv") == [(name, epoch) for name in "abc" for epoch in (1, 2)]
    assert not list((parts / "toy").glob("*.csv"))
    made = json.loads((tables / "made.json").read_text())["toy"]["sessions"]
    assert [set(session) for session in made] == [{"device", "python", "torch", "seconds"}] * 2


def test_a_killed_part_goes_on_where_it_was(toy, folders, asked_for):
    def killed(cases, device):
        yield next(toy.make(cases, device))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_parts(dataclasses.replace(toy, make=killed), ["first"], *folders)
    merge(toy, *folders)
    assert not (folders[0] / "toy.csv").exists(), "a part that is not whole was merged"
    make_parts(toy, ["first"], *folders)
    merge(toy, *folders)
    assert asked_for == ["a", "b"]
    assert rows(folders[0] / "toy.csv") == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_a_row_without_its_last_value_is_made_again_and_the_others_are_kept(toy, folders, asked_for):
    path = folders[0] / "toy.csv"
    path.write_text("name,epoch,value\na,1,0.5\na,2,1.0\nz,7,9.0\nb,1,0.5\nb,2,\n")
    write_json(folders[0] / "made.json", {"toy": {"sha256": sha256(path), "sessions": []}})
    assert toy.lacking(folders[0]) == ["first", "second"]
    make_parts(toy, ["first"], *folders)
    merge(toy, *folders)
    assert asked_for == ["b"]
    assert path.read_text() == "name,epoch,value\na,1,0.5\na,2,1\nb,1,0.5\nb,2,1\nz,7,9\n"
    assert toy.lacking(folders[0]) == ["second"]


def test_a_part_that_the_table_has_asks_for_nothing(toy, folders, asked_for):
    for _ in range(2):
        make_parts(toy, ["first"], *folders)
        merge(toy, *folders)
    assert asked_for == ["a", "b"]
    assert rows(folders[0] / "toy.csv") == [("a", 1), ("a", 2), ("b", 1), ("b", 2)]


def test_what_made_other_tables_is_kept(toy, folders):
    (folders[0] / "made.json").write_text('{"other": {"sha256": "1", "sessions": [1]}}')
    make_parts(toy, ["first"], *folders)
    merge(toy, *folders)
    made = json.loads((folders[0] / "made.json").read_text())
    assert made["other"] == {"sha256": "1", "sessions": [1]}
    assert len(made["toy"]["sessions"]) == 1


@pytest.mark.parametrize("content", ["", "[]", '{"toy": 5}', '{"toy": []}', '{"toy": {"sessions": 1}}'])
def test_a_made_json_that_does_not_say_what_made_the_tables_is_refused(toy, folders, content):
    (folders[0] / "made.json").write_text(content)
    make_parts(toy, ["first"], *folders)
    with pytest.raises(FileError, match=r"made\.json'"):
        merge(toy, *folders)
    assert (folders[0] / "made.json").read_text() == content


@pytest.mark.parametrize("last", range(1, 7))
def test_a_merge_that_is_killed_at_any_write_is_merged_again(toy, folders, monkeypatch, last):
    for part in toy.parts:
        make_parts(toy, [part], *folders)
    write, left = files.write_atomic, iter(range(last - 1))

    def dying(path, content):
        if next(left, None) is None:
            raise KeyboardInterrupt
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(files, "write_atomic", dying)
        patch.setattr(tables, "write_atomic", dying)
        with pytest.raises(KeyboardInterrupt):
            merge(toy, *folders)
    merge(toy, *folders)
    assert toy.lacking(folders[0]) == []
    assert tables.is_as_made("toy", folders[0])
    assert len(tables.made(folders[0])["toy"]["sessions"]) == 2


def test_nothing_is_added_to_a_table_that_somebody_changed(toy, folders):
    make_parts(toy, ["first"], *folders)
    merge(toy, *folders)
    path = folders[0] / "toy.csv"
    path.write_text(path.read_text().replace("0.5", "0.7"))
    before = path.read_text()
    make_parts(toy, ["second"], *folders)
    with pytest.raises(FileError, match="is not what was made, as its digest shows; restore it, or delete it"):
        merge(toy, *folders)
    assert path.read_text() == before
    path.unlink()
    assert toy.lacking(folders[0]) == ["first", "second"]


@pytest.mark.parametrize("content", ["", "\x00", "a,b\n1,2,3\n1\n", "value\n1\n", '"'])
@pytest.mark.parametrize("place", ["part", "table"])
def test_a_file_that_is_no_table_ends_in_one_sentence(toy, folders, place, content):
    path = folders[1] / "toy" / "first.begun.csv" if place == "part" else folders[0] / "toy.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    with pytest.raises(FileError) as refusal:
        make_parts(toy, ["first"], *folders)
    assert is_one_sentence(str(refusal.value))
    assert path.read_text() == content


def test_a_slug_is_a_file_name_that_tells_cases_apart():
    assert slug({"variant": "λ₁, λ₂ .5, λ₃ .75", "seed": 0}) == "λ₁-λ₂-.5-λ₃-.75-seed0"
    assert slug({"rho": 0.5, "kind": "partner's mean"}) == "rho0.5-partner-s-mean"


def assert_same_to_rounding(state, other, config):
    """Parameters differ by little against how far they have moved.

    AdamW divides a gradient by its own size: one that is nothing but rounding moves its parameter as far as any.
    """
    moved = other["theta"] - initial_state(config, torch.device("cpu"))["theta"]
    assert (state["theta"] - other["theta"]).norm() < 0.02 * moved.norm()


def test_states_come_at_every_stop_and_in_order_whatever_the_groups():
    configs = [make_config(**(SHORT | varied)) for varied in VARIED]
    found = list(train_together(configs, "cpu", (1, 2)))
    assert [(place, int(state["epoch"])) for place, state in found] == [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]
    for place, state in found:
        trainer = Trainer(configs[place], "cpu")
        alone = initial_state(configs[place], trainer.device)
        for _ in range(int(state["epoch"])):
            alone = trainer.epoch(alone)
        assert_same_to_rounding(state, alone, configs[place])


def test_on_a_gpu_those_that_can_be_replicas_train_together(monkeypatch):
    """On a CPU that passes for a GPU."""
    monkeypatch.setattr(study, "is_gpu", lambda device: True)
    configs = [make_config(**(SHORT | varied)) for varied in ({"seed": 1}, {"seed": 1, "latent": 4}, {"seed": 2})]
    found = list(train_together(configs, "cpu", (1, 2)))
    assert [(place, int(state["epoch"])) for place, state in found] == [(0, 1), (2, 1), (0, 2), (2, 2), (1, 1), (1, 2)]
    for place, state in found[2:4]:
        (alone,) = (state for _, state in train_together([configs[place]], "cpu", (2,)))
        assert_same_to_rounding(state, alone, configs[place])


def test_training_goes_on_from_states():
    configs = [make_config(**(SHORT | varied)) for varied in VARIED[:2]]
    found = [state for _, state in train_together(configs, "cpu", (1, 2))]
    for (place, state), whole in zip(train_together(configs, "cpu", (2,), start=found[::2]), found[1::2], strict=True):
        assert int(state["epoch"]) == 2
        assert_same_to_rounding(state, whole, configs[place])


def test_training_together_refuses_stops_with_one_sentence():
    configs = [make_config(**(SHORT | varied)) for varied in VARIED[:2]]
    for stop in (0, 5):
        with pytest.raises(ParameterError, match=f"^epochs is {stop}; it must be a whole number from 1 to 4"):
            next(train_together(configs, "cpu", (stop,)))
    assert list(train_together([], "cpu", (1,))) == []


def test_rows_of_a_case_come_together_with_its_keys_after_the_last_stop():
    cases = [{"seed": seed} for seed in range(3)]
    configure = lambda case: make_config(**SHORT, seed=case["seed"])  # noqa: E731
    measure = lambda case, config, state: [{"epoch": int(state["epoch"]), "of": config.seed}]  # noqa: E731
    found = list(train_cases(cases, "cpu", configure, (1, 2), measure))
    assert found == [[{"seed": s, "epoch": epoch, "of": s} for epoch in (1, 2)] for s in range(3)]
    assert list(train_cases([], "cpu", configure, (1, 2), measure)) == []


def test_a_whole_part_that_was_not_merged_keeps_its_rows_when_more_are_asked_for(tmp_path):
    def study(*seeds):
        cases = [{"seed": seed} for seed in seeds]
        return Study(
            "toy", ("seed",), {"only": cases}, lambda asked, device: ([c | {"made": len(asked)}] for c in asked)
        )

    make_parts(study(0), ["only"], tmp_path, tmp_path)
    make_parts(study(0, 1, 2), ["only"], tmp_path, tmp_path)
    assert (tmp_path / "toy" / "only.csv").read_text() == "seed,made\n0,1\n1,2\n2,2\n"
    assert not (tmp_path / "toy" / "only.begun.csv").exists()
