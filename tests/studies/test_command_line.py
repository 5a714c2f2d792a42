"""`python -m studies`: the steps that the workflow calls."""

import pytest

from studies.__main__ import main
from studies.catalogue import STUDIES
from studies.study import Study
from tvae_lib.errors import ParameterError


def test_a_part_is_made_and_merged_in_the_folders_asked_for(tmp_path, monkeypatch):
    toy = Study("toy", ("seed",), {"only": [{"seed": 3}]}, lambda cases, device: ([c | {"on": device}] for c in cases))
    monkeypatch.setitem(STUDIES, "toy", "toy.toy")
    monkeypatch.setattr("studies.__main__.study_of", lambda table: toy)
    (tmp_path / "tables").mkdir()
    folders = ["--tables", str(tmp_path / "tables"), "--runs", str(tmp_path / "runs")]
    main(["part", "toy", "only", *folders, "--device", "cpu"])
    assert (tmp_path / "runs" / "toy" / "only.csv").read_text() == "seed,on\n3,cpu\n"
    main(["merge", "toy", *folders])
    assert (tmp_path / "tables" / "toy.csv").read_text() == "seed,on\n3,cpu\n"


def test_unknown_tables_and_parts_are_refused_with_one_sentence(tmp_path):
    with pytest.raises(ParameterError, match=r"^table is 'rates'; it must be one of rate, singles, .*peers\.$"):
        main(["merge", "rates", "--runs", str(tmp_path)])
    with pytest.raises(ParameterError, match=r"^part is 'seed10'; in base it must be one of seed0, seed1, "):
        main(["part", "base", "seed10", "--runs", str(tmp_path)])
    assert not list(tmp_path.iterdir())
