"""The committed tables are whole and are those of the studies as they stand."""

import pytest

from studies.catalogue import STUDIES, study_of
from studies.tables import FOLDER, read


@pytest.mark.parametrize("study", [study_of(table) for table in STUDIES], ids=STUDIES)
def test_committed_table_has_every_row_and_no_other(study):
    assert study.lacking(FOLDER) == []
    rows = [row for cases in study.parts.values() for case in cases for row in study.rows_of(case)]
    assert len(read(study.table)) == len(rows)


@pytest.mark.parametrize("name", STUDIES)
def test_committed_table_lacks_no_value_but_what_is_undefined(name):
    table = read(name)
    if "cka" in table:
        undefined = table[table["cka"].isna()]  # of codes that are the same for every operation
        assert (undefined[["exact_A", "exact_B"]].min(axis=1) < 1e-3).all()
        table = table.drop(columns="cka")
    if "least_A" in table:
        for p in "AB":  # the divergence from uniform is infinite where an operation has no probability
            never = table[table[f"kl_uniform_{p}"].isna()]
            assert (never[f"least_{p}"] < 1e-12).all()
            table = table.drop(columns=[f"kl_uniform_{p}", f"kl_uniform_error_{p}"])
    assert table.notna().all(axis=None)


@pytest.mark.parametrize("study", [study_of(table) for table in STUDIES], ids=STUDIES)
def test_parts_are_named_by_letters_that_a_file_may_have(study):
    assert all("/" not in part and " " not in part and "'" not in part for part in study.parts)
