"""The built-in cohorts on the real data, against the reference's figures; skipped where there are none."""

from pathlib import Path

import polars as pl
import pytest

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest

DATA = Path(__file__).parents[2].parent / "shared/data/diabetes130/diabetic_data.parquet"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_file(), reason=f"REAL DATA ABSENT, cohort figures unchecked: no {DATA}"),
]


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    out = tmp_path_factory.mktemp("diabetes130") / "ehr"
    ingest(DATA, out, format="diabetes130", announce=lambda line: None)
    return read_tables(out)


@pytest.mark.parametrize(
    ("name", "patients", "cases"),
    [("hf-later", 13_518, 2_325), ("los-next", 16_773, 2_908), ("readmission-30d", 69_990, 6_285)],
)
def test_patients_and_cases(tables, name, patients, cases):
    frame, ledger = select_cohort(tables, load_spec(name))
    print(f"{ledger.render()}\n{name}: n = {frame.height:,}, cases = {frame['label'].sum():,}")
    assert (frame.height, frame["label"].sum()) == (patients, cases)
    assert (frame["input_until"] == frame["index_order"] - (name != "readmission-30d")).all()


def test_deaths_and_hospice_are_nobodys_readmission_index(tables):
    frame, ledger = select_cohort(tables, load_spec("readmission-30d"))
    keys = ["patient_id", "order"]
    index = tables.visits.join(frame, left_on=keys, right_on=["patient_id", "index_order"])
    assert index.height == frame.height
    assert index.filter(pl.col("discharge_disposition").is_in(["expired", "hospice"])).is_empty()
    assert index["readmitted_30d"].cast(pl.Int32).equals(index["label"])
    left = {line.rule: line.left.patients for line in ledger.lines}
    assert (left["died_at_index"], left["hospice_at_index"]) == (1_079, 449)
