"""Bad input: one sentence with the parameter, its value and what is allowed, before anything is written."""

import dataclasses
from typing import ClassVar

import pytest
from shared import is_one_sentence

from tvae_lib.errors import FileError, ParameterError, shown
from tvae_lib.training.config import FIELDS, PRESETS, REFERENCE, Config, from_namespace, identity, make_config

BAD = [
    ("preset", "v6"),
    ("epochs", 0),
    ("epochs", -1),
    ("epochs", 1.5),
    ("epochs", True),
    ("epochs", "lots"),
    ("epochs", 401),
    ("total_epochs", 0),
    ("total_epochs", None),
    ("batch_size", 0),
    ("batch_size", 19_684),
    ("holdout", -0.1),
    ("holdout", 0.91),
    ("holdout", float("nan")),
    ("holdout", "half"),
    ("device", "tpu"),
    ("device", "cuda:9"),
    ("threads", 0),
    ("threads", "2.5"),
    ("threads", "many"),
    ("threads", True),
    ("final_error", -1),
    ("seed", -1),
    ("seed", 2**64),
    ("seed", 1.0),
    ("coverage_samples", 0),
    ("coverage_samples", "a,b"),
    ("coverage_samples", ""),
    ("coverage_samples", "10,,20"),
    ("coverage_samples", [1.5]),
    ("eval_every", 0),
    ("checkpoint_every", 0),
    ("run_dir", 5),
    ("resume", "maybe"),
    ("lr", "1e-2"),
    ("lr", float("inf")),
    ("lr", 0.0),
    ("lambda_1", 0.96),
    ("tau", -1),
    ("sigma_rep", 0),
    ("statenet", "on"),
    ("pathways", "C"),
    ("alignment", 1),
    ("alignment", {}),
    ("epochs", 10**400),
    ("lr", 10**400),
    ("lr", -(10**400)),
    ("seed", 10**5000),
    ("holdout", 10**5000),
    ("coverage_samples", "1" * 5000),
    ("coverage_samples", [10**5000]),
    ("threads", "1" * 5000),
    ("threads", 10**5000),
    ("device", "x" * 5000),
    ("device", "cuda\n:0"),
    ("run_dir", "a\0b"),
    ("run_dir", "~nouser/x"),
    ("run_dir", "\ud800"),
    ("run_dir", None),
]


@pytest.mark.parametrize(("name", "value"), BAD, ids=[f"{n}={shown(v, 20)}" for n, v in BAD])
def test_bad_value_is_refused_in_one_sentence(name, value):
    with pytest.raises(ParameterError) as refusal:
        make_config(**{"device": "cpu", name: value})
    message = str(refusal.value)
    assert is_one_sentence(message)
    assert message.startswith(f"{name} is {shown(value)}")
    assert len(message) < 500
    assert "must be" in message


def test_unknown_parameter_is_named_with_its_value_and_the_known_ones():
    with pytest.raises(ParameterError, match=r"^ephocs is 5, but no such parameter exists; perhaps epochs is meant\.$"):
        make_config(ephocs=5)
    with pytest.raises(ParameterError, match=r"^colour is 5, but no such parameter exists; allowed are preset, epochs"):
        make_config(colour=5)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ParameterError, match="device is 'cuda'; on this machine it must be one of auto, cpu"):
        make_config(device="cuda")


def test_good_values_are_taken_as_papermill_passes_them():
    config = make_config(device="cpu", coverage_samples="50000, 10000", holdout=0, epochs=5, seed=2**64 - 1, lr=None)
    assert config.coverage_samples == (10_000, 50_000)
    assert config.holdout == 0.0
    assert config.lr == 1e-3
    assert make_config(device="cpu", coverage_samples=1000).coverage_samples == (1000,)


def test_presets_give_way_to_what_is_asked_for():
    corrected = make_config(preset="bare", device="cpu")
    assert (corrected.statenet, corrected.beta_end) == ("off", 0.98)
    assert make_config(preset="bare", statenet="detached", device="cpu").statenet == "detached"
    assert make_config(device="cpu") == Config(device="cpu")


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_are_themselves_allowed(preset):
    config = make_config(preset=preset, device="cpu")
    given = {f.name: getattr(config, f.name) for f in dataclasses.fields(config)}
    assert make_config(**given) == config


def test_every_parameter_says_what_it_means():
    assert all(field.metadata["help"] for field in FIELDS.values())


def test_identity_leaves_out_where_and_how_far():
    elsewhere = {"epochs", "device", "threads", "run_dir", "resume"}
    assert set(FIELDS) - set(identity(Config(holdout=0.1))) == elsewhere
    assert set(FIELDS) - set(identity(Config())) == {*elsewhere, "holdout_by"}


def test_namespace_finds_a_misspelt_parameter_and_ignores_the_rest(monkeypatch):
    monkeypatch.delenv("TVAE_SHOW_REFERENCE", raising=False)
    names = {
        "preset": "document",
        "device": "cpu",
        "seed": 3,
        "_private": 1,
        "In": [],
        "Out": {},
        "dataclasses": dataclasses,
    }
    assert from_namespace(names).seed == 3
    with pytest.raises(ParameterError, match=r"^sede is 3"):
        from_namespace(names | {"sede": 3})


PARAMETERS = "preset = 'document'\nseed: int = 3\nlr = -1e-3\ncoverage_samples = [1, 2]\nholdout = float('nan')"


class TestNamespaceOfANotebook:
    """`In` holds the cells that were executed, the last of them the one that asks."""

    names: ClassVar = {"device": "cpu", "seed": 3, "recorded": {"a": 1}, "total": 400, "PAPERMILL_INPUT_PATH": "x"}

    def config(self, *cells, **more):
        return from_namespace({**self.names, **more, "In": ["", *cells, "config = from_namespace(globals())"]})

    def test_names_of_the_page_are_not_taken_for_parameters(self):
        page = ["recorded, total = run.config, 400", "import os", "for i in range(3):\n    x = 1"]
        for cells in (page, [*page, "seed = 3"], ["seed = 3", "PAPERMILL_INPUT_PATH = 'x'"], [*page, PARAMETERS]):
            assert self.config(*cells).seed == 3

    @pytest.mark.parametrize(
        "cells",
        [
            ["seed = 3\nephocs = 5"],
            ["seed = 3", "# Parameters\nephocs = 5"],
            ["seed = 3\nephocs = 5", "# Parameters\nseed = 3"],
            ["x = f()", "seed = 3\nephocs: int = 5"],
        ],
    )
    def test_a_misspelt_parameter_in_the_cells_above_is_refused(self, cells):
        with pytest.raises(
            ParameterError, match=r"^ephocs is 5, but no such parameter exists; perhaps epochs is meant"
        ):
            self.config(*cells, ephocs=5)

    def test_one_that_was_corrected_since_is_forgotten(self):
        assert self.config("seed = 3\nephocs = 5", "def f(): pass", "seed = 3", ephocs=5).seed == 3

    def test_a_cell_that_is_no_python_is_none_of_ours(self):
        assert self.config("!ls", "%matplotlib inline", "seed = ", "\0").seed == 3


@pytest.mark.parametrize("value", ["0", "", "false", "no", "off", " 0 "])
def test_the_reference_run_is_shown_only_where_it_is_asked_for(monkeypatch, value):
    monkeypatch.setenv("TVAE_SHOW_REFERENCE", value)
    assert from_namespace({"device": "cpu"}).run_dir == ""
    monkeypatch.setenv("TVAE_SHOW_REFERENCE", "1")
    assert from_namespace({"device": "cpu"}).run_dir == str(REFERENCE)


def test_a_reference_run_that_is_not_there_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("TVAE_SHOW_REFERENCE", "1")
    monkeypatch.setattr("tvae_lib.training.config.REFERENCE", tmp_path)
    with pytest.raises(FileError, match="TVAE_SHOW_REFERENCE is set, but there is no finished run in") as refusal:
        from_namespace({"device": "cpu"})
    assert is_one_sentence(str(refusal.value))


def test_a_number_for_a_text_is_answered_with_the_option_that_passes_it():
    with pytest.raises(ParameterError, match=r"^run_dir is 2024; it must be text \(papermill's -r passes a number"):
        make_config(device="cpu", run_dir=2024)
