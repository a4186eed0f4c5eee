"""The fingerprint fails on one label, one id, one draw, one weight; alignment, rates and places do not count."""

import json
from dataclasses import replace

import fingerprint
import numpy as np
import polars as pl
import pytest
from made_datasets import Drawn, write_drawn
from made_ehr import made_tables

from medbert_jax.data.token_store import open_token_store
from medbert_jax.ehr.tables import write_tables
from medbert_jax.simulation.simulate import simulate

PATIENT = Drawn([(0, 20_000, 3, [16, 17]), (40, 20_040, 1, [18])], event=1, index_day=50, id="p1")


def changed_names(before: dict, after: dict) -> list[str]:
    return fingerprint.differences(before, after)


def test_one_id_of_the_tables_is_seen(tmp_path):
    tables = made_tables(40, seed=1)
    write_tables(tables, tmp_path / "as-it-is")
    first = tables.diagnoses["patient_id"][0]
    other = next(one for one in tables.patients["patient_id"] if one != first)
    swapped = pl.when(pl.col("patient_id").is_in([first, other])).then(
        pl.when(pl.col("patient_id") == first).then(pl.lit(other)).otherwise(pl.lit(first))
    )
    patients = tables.patients.with_columns(swapped.otherwise("patient_id").alias("patient_id"))
    write_tables(replace(tables, patients=patients), tmp_path / "swapped")
    before, after = (fingerprint.tables_digests(tmp_path / name) for name in ("as-it-is", "swapped"))
    found = changed_names(before, after)
    assert found and all(name.startswith("patients.") for name in found)
    assert not changed_names(before, fingerprint.tables_digests(tmp_path / "as-it-is"))


@pytest.mark.parametrize("change", [{"event": 0}, {"index_day": 51}, {"id": "p2"}, {"sex": 1}])
def test_one_label_day_or_id_of_a_dataset_is_seen(tmp_path, change):
    found = []
    for name, patient in (("before", PATIENT), ("after", replace(PATIENT, **change))):
        folder = write_drawn(
            tmp_path / name / "1.0.0",
            {"train": [patient, replace(PATIENT, id="q")]},
            kind="cohort",
            codes=("ICD10CM/A", "ICD10CM/B", "ICD10CM/C"),
        )
        (folder / "ledger.json").write_text(json.dumps({}))
        open_token_store(folder, "train")
        found.append(fingerprint.dataset_digests(folder))
    names = changed_names(*found)
    assert any("array_record" in name for name in names) and any(name.endswith(".npy") for name in names)


def test_one_draw_of_the_simulation_is_seen(tmp_path, monkeypatch):
    settings = {"patients": 200, "shards": 1, "workers": 1, "announce": lambda text: None}
    for name in ("before", "again"):
        simulate(tmp_path / name, **settings)
    philox = np.random.Philox
    monkeypatch.setattr(np.random, "Philox", lambda sequence: philox(sequence).advance(1))
    simulate(tmp_path / "drawn", **settings)
    before, again, drawn = (fingerprint.tables_digests(tmp_path / name) for name in ("before", "again", "drawn"))
    assert not changed_names(before, again)
    assert {"diagnoses.code", "visits.admit_time"} <= set(changed_names(before, drawn))


def test_words_and_numbers_of_a_text_count_and_nothing_else_does():
    text = "cases   12 │ controls 30\n/tmp/a/ledger.json 1,200 patients/s, 3 s left, 0a1b2c3d4e5f60718293"
    same = "cases 12 controls 30\n─────\n/other/ledger.json 900 patients/s, 5 s left, ffffffffffffffffffff"
    assert fingerprint.text_digest(text) == fingerprint.text_digest(same)
    assert fingerprint.text_digest(text) != fingerprint.text_digest(text.replace("12", "13"))
    assert fingerprint.text_digest(text) != fingerprint.text_digest(text.replace("cases", "case"))


def test_results_are_compared_value_by_value(tmp_path):
    (tmp_path / "predictions").mkdir()
    row = {"cohort": "c", "backbone": "b", "head": "h", "train_size_name": "all", "split": "test", "metric": "auroc"}
    pl.DataFrame([row | {"value": 0.75}]).write_parquet(tmp_path / "run.parquet")
    pl.DataFrame({"subject_id": ["1"], "risk": [0.5]}).write_parquet(tmp_path / "predictions" / "run.parquet")
    before = fingerprint.results_digests(tmp_path)
    pl.DataFrame([row | {"value": np.nextafter(0.75, 1)}]).write_parquet(tmp_path / "run.parquet")
    assert changed_names(before, fingerprint.results_digests(tmp_path)) == ["c b h all test auroc"]
