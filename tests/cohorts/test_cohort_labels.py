"""MEDS labels in place of a spec: the time is inclusive, the first one counts, and the ledger adds up."""

from dataclasses import replace
from datetime import datetime

import polars as pl
import pytest
from drawn_patients import person, tables_of, visit

from medbert_jax.cohorts.loading import load_cohort
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_cohort


def folder(path, rows):
    """A label folder of two files, in a folder of their own."""
    names = ("subject_id", "prediction_time", "boolean_value")
    labels = pl.DataFrame(rows, schema=names, orient="row").with_columns(
        pl.col("prediction_time").cast(pl.Datetime("us"))
    )
    for number, part in enumerate((labels[::2], labels[1::2])):
        (path / "train").mkdir(parents=True, exist_ok=True)
        part.write_parquet(path / "train" / f"{number}.parquet")
    return LabelFolder.find(path)


STAY = visit("2010-01-01T08:00", "250.00", discharge="2010-01-03T12:00")
PEOPLE = {
    str(number): person(STAY, visit("2010-02-01T08:00", "428.0", discharge="2010-02-01T09:00"))
    for number in range(1, 8)
}
AT_THE_END = datetime(2010, 1, 3, 12)
BEFORE_THE_END = datetime(2010, 1, 3, 11, 59)


def test_the_prediction_time_is_inclusive_and_the_first_one_counts(tmp_path):
    labels = folder(
        tmp_path / "labels",
        [
            (1, AT_THE_END, True),
            (2, BEFORE_THE_END, True),
            (3, datetime(2010, 2, 1, 9), False),
            (4, datetime(2012, 1, 1), True),
            (4, AT_THE_END, False),
            (99, AT_THE_END, True),
            (5, datetime(2010, 2, 1, 8, 30), True),
        ],
    )
    tables = tables_of({**PEOPLE, "6": person()})
    frame, ledger = select_cohort(tables, labels)
    assert frame.select("patient_id", "label", "input_until", "index_order").rows() == [
        ("1", 1, 1, 2), ("3", 0, 2, 3), ("4", 0, 1, 2), ("5", 1, 2, 3)
    ]  # fmt: skip
    assert frame.filter(patient_id="1")["prediction_time"].to_list() == [AT_THE_END]
    assert frame.filter("flag_several_prediction_times")["patient_id"].to_list() == ["4"]
    assert frame["index_day"].to_list() == [2, 31, 2, 31]
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {
        "not_labelled": 2, "input_codes": 1
    }  # fmt: skip
    assert frame.schema["label"] == pl.Int32 and frame.schema["weight"] == pl.Float64


def test_of_several_times_the_first_the_last_or_one_drawn_whatever_its_label_is_taken(tmp_path):
    rows = [(number, datetime(2010, 1, 3, 12) if time == 0 else datetime(2010, 2, 1, 8 + time), time == 1)
            for number in range(1, 8) for time in range(3)]  # fmt: skip
    first = folder(tmp_path / "labels", rows)
    last, drawn = (replace(first, which=which) for which in ("last", "random"))
    tables = tables_of(PEOPLE)

    def times(labels):
        frame, _ = select_cohort(tables, labels)
        assert frame["flag_several_prediction_times"].all()
        return dict(frame.select("patient_id", "prediction_time").iter_rows())

    assert set(times(first).values()) == {AT_THE_END}
    assert set(times(last).values()) == {datetime(2010, 2, 1, 10)}
    assert len(set(times(drawn).values())) > 1 and times(drawn) == times(drawn)
    # Other labels at the same times draw the same times.
    turned = folder(tmp_path / "turned", [(number, time, not label) for number, time, label in rows])
    assert times(replace(turned, which="random")) == times(drawn)
    assert "labels" not in first.to_dict()  # as datasets have always said it
    assert last.to_dict()["labels"] == "last"
    with pytest.raises(ValueError, match="labels says which of a folder's labels is taken: got last and a spec"):
        load_cohort("dhf", labels="last")


def test_labels_that_are_none_are_refused_with_every_fault(tmp_path):
    with pytest.raises(ValueError, match=r"got no \.parquet file in"):
        LabelFolder.find(tmp_path)
    pl.DataFrame({"subject_id": [1], "label": [True]}).write_parquet(tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"no column prediction_time in a\.parquet; no column boolean_value in a"):
        LabelFolder.find(tmp_path)
    with pytest.raises(ValueError, match="1 rows without boolean_value"):
        folder(tmp_path / "nulls", [(1, AT_THE_END, None), (2, AT_THE_END, True)])


def test_other_labels_are_another_cohort_and_sources_without_dates_are_refused(tmp_path):
    one = folder(tmp_path / "one", [(1, AT_THE_END, True), (2, AT_THE_END, False)])
    two = folder(tmp_path / "two", [(1, AT_THE_END, True), (2, AT_THE_END, True)])
    assert one.to_dict()["labels_sha256"] != two.to_dict()["labels_sha256"]
    with pytest.raises(ValueError, match="got a source without dates"):
        select_cohort(tables_of({"1": person()}, dates=False), one)


@pytest.mark.parametrize(
    "kind",
    [pl.Datetime("ms"), pl.Datetime("us"), pl.Datetime("ns"), pl.Datetime("us", "Europe/Berlin"), pl.Date, pl.String],
    ids=str,
)
def test_shards_may_have_times_of_other_units_and_ids_of_other_types(tmp_path, kind):
    labels, plain = tmp_path / "labels" / "held_out" / "deep", {"boolean_value": [True, False]}
    labels.mkdir(parents=True)
    frame = pl.DataFrame({"subject_id": [1, 2], "prediction_time": [datetime(2010, 1, 4)] * 2, **plain})
    frame.write_parquet(labels / "0.parquet")
    time = pl.col("prediction_time")
    zone = getattr(kind, "time_zone", None)
    time = time.dt.replace_time_zone(zone) if zone else time.cast(kind)
    frame.with_columns(time, subject_id=pl.Series([" 3", "s04"])).write_parquet(labels / "1.parquet")
    tables = tables_of({name: person(STAY) for name in ("1", "2", "3", "s04", "5")})
    frame, ledger = select_cohort(tables, LabelFolder.find(tmp_path / "labels"))
    assert frame.select("patient_id", "label").rows() == [("1", 1), ("2", 0), ("3", 1), ("s04", 0)]
    assert set(frame["prediction_time"]) == {datetime(2010, 1, 4)}
    assert {line.rule: line.left.patients for line in ledger.lines if line.left.patients} == {"not_labelled": 1}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"subject_id": pl.lit(1.0)}, r"column subject_id of Float64 in 0\.parquet"),
        ({"prediction_time": pl.lit(20100104)}, "column prediction_time of Int32"),
        ({"prediction_time": pl.lit("in May")}, "1 rows without prediction_time"),
        ({"boolean_value": pl.lit(2)}, "1 rows without boolean_value"),
        ({"subject_id": pl.lit(" ")}, "1 rows without subject_id"),
    ],
)
def test_what_is_no_id_no_time_and_no_label_is_refused(tmp_path, change, said):
    row = pl.DataFrame({"subject_id": [1], "prediction_time": [AT_THE_END], "boolean_value": [True]})
    row.with_columns(**change).write_parquet(tmp_path / "0.parquet")
    with pytest.raises(ValueError, match=said):
        LabelFolder.find(tmp_path)
