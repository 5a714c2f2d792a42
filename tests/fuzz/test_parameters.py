"""Whatever is given as parameters: a configuration, or one sentence."""

import dataclasses
import json
import math

import pytest
from attempts import attempts
from hypothesis import given
from hypothesis import strategies as st

from tvae_lib.errors import ParameterError
from tvae_lib.training.config import FIELDS, PRESETS, from_namespace, identity, make_config

NUMBERS = st.one_of(
    st.integers(-3, 500),
    st.integers(),
    st.sampled_from([2**64, 2**63, True, False, 0, -0.0, 1e308, 1e-320]),
    st.sampled_from([400, 5000]).map(lambda n: 10**n),
    st.floats(),
    st.floats(0, 1),
)
WORDS = st.sampled_from(
    [
        *("", "auto", "cpu", "cuda", "cuda:0", "None", "1e-2", "10,20", "10,,20", "١٠", "AB", "off", "on", "yes"),
        *("1" * 5000, "a\0b", "~nouser", "~", "../x", "\n", "\ud800", "$(x)", "document", "bare", "backprop"),
    ]
)
VALUES = st.recursive(
    st.one_of(st.none(), NUMBERS, WORDS, st.text(max_size=20), st.binary(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.tuples(inner, inner), st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


def plausible(name):
    """Values near those that a parameter may have, more often than not allowed."""
    rules = FIELDS[name].metadata
    if "choices" in rules:
        return st.sampled_from(rules["choices"])
    if rules["kind"] in (int, float):
        low, high = rules["low"], rules["high"]
        near = st.sampled_from(
            [low, high, math.nextafter(low, -math.inf), math.nextafter(high, math.inf), high * 2, -1]
        )
        return st.one_of(near, st.integers(low, high) if rules["kind"] is int else st.floats(low, high))
    return WORDS


NAMES = st.one_of(
    st.sampled_from([*FIELDS]), st.sampled_from(["ephocs", "seeds", "x", "In", "_x"]), st.text(max_size=8)
)


@st.composite
def dictionaries(draw):
    names = draw(st.lists(NAMES, max_size=6, unique=True))
    wild = st.integers(0, 3)
    return {n: draw(VALUES if n not in FIELDS or draw(wild) == 0 else plausible(n)) for n in names}


@pytest.fixture(autouse=True)
def own_run(monkeypatch):
    monkeypatch.delenv("TVAE_SHOW_REFERENCE", raising=False)


@attempts(4000)
@given(dictionaries(), st.booleans())
def test_parameters_are_taken_or_refused_in_one_sentence(parameters, by_notebook):
    try:
        config = from_namespace(dict(parameters)) if by_notebook else make_config(**parameters)
    except ParameterError as refusal:
        told = str(refusal)
        assert "\n" not in told
        assert told.endswith(".")
        assert len(told) < 1500
        assert any(name in told or repr(name)[1:-1] in told for name in parameters)
        return
    given = {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    assert make_config(**given) == config
    assert json.loads(json.dumps(identity(config), allow_nan=False)) == identity(config)
    preset = PRESETS[config.preset]
    for name, value in given.items():
        asked = parameters.get(name)
        expected = preset.get(name, FIELDS[name].default) if asked is None else asked
        if name not in ("coverage_samples", "threads"):
            assert value == expected, name
