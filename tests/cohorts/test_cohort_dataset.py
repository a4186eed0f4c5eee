"""From cohort to dataset: what is told before anything is trained, what is refused, and cohort.parquet."""

import json
import re
import sys
from dataclasses import replace
from datetime import date, datetime

import drawn_patients as drawn
import numpy as np
import polars as pl
import pytest
from made_ehr import made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.chart_review.page import KEY, PAGE
from medbert_jax.cli import main
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.cohorts.spec import TemporalSplit
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.description.describe import describe
from medbert_jax.ehr.hashing import SPLITS
from medbert_jax.ehr.tables import read_shard, read_source, read_tables, write_tables
from tfds_builders.disease_cohort.disease_cohort_dataset_builder import (
    REFUSED_LEDGER,
    REFUSED_REVIEW,
    RefusedCohort,
)
from tfds_builders.excluded_cohort import COHORT_TABLE
from tfds_builders.period import outside_period


def quiet(text):
    """Say nothing."""


@pytest.fixture(scope="module")
def ehr(tmp_path_factory):
    """Made tables whose patients have numbers, as in MEDS."""
    tables, directory = made_tables(400, seed=21), tmp_path_factory.mktemp("source") / "ehr"
    number = pl.col("patient_id").str.extract(r"(\d+)").cast(pl.Int64).cast(pl.String)
    tables = replace(tables, **{name: table.with_columns(number) for name, table in tables.present().items()})
    write_tables(tables, directory, shards=2)
    return directory


@pytest.fixture(scope="module")
def pretraining(ehr, tmp_path_factory):
    return prepare_pretraining(ehr, "made", data_dir=tmp_path_factory.mktemp("data"), announce=quiet)


@pytest.fixture
def prepare(ehr, pretraining, tmp_path):
    def run(cohort="hf-later", name="hf", **settings):
        settings = {"few_cases": True, "announce": quiet, "ehr_directory": ehr} | settings
        directory = settings.pop("ehr_directory")
        return prepare_cohort(directory, cohort, name, data_dir=tmp_path, pretraining_dataset=pretraining, **settings)

    return run


def test_the_last_day_of_the_source_is_that_of_all_shards(ehr):
    last = read_tables(ehr).visits["admit_time"].max().date().isoformat()
    assert read_source(ehr).last_day == last
    assert {read_shard(ehr, shard).source.last_day for shard in (0, 1)} == {last}
    assert len({read_shard(ehr, shard).visits["admit_time"].max() for shard in (0, 1)}) == 2


def test_tables_without_a_last_day_are_read_as_before(ehr, tmp_path):
    write_tables(read_tables(ehr), tmp_path / "old")
    path = tmp_path / "old" / "source.json"
    record = json.loads(path.read_text())
    del record["last_day"]
    path.write_text(json.dumps(record))
    with pytest.raises(ValueError, match="last_day is missing"):
        read_source(tmp_path / "old")
    record["written_as"] = re.sub(r"\d+$", "1", record["written_as"])
    path.write_text(json.dumps(record))
    assert read_source(tmp_path / "old").last_day is None
    undated = made_tables(40, dates=False)
    assert write_tables(undated, tmp_path / "undated").last_day is None


def test_fewer_than_50_test_cases_are_refused_unless_asked_for(prepare, tmp_path):
    said = []
    with pytest.raises(ValueError, match=r"at least 50 test cases: got cases train \d+ .*; take more .* --few-cases"):
        prepare(few_cases=False, announce=said.append)
    folder = tmp_path / "disease_cohort" / "hf"
    assert [path.name for path in folder.iterdir()] == [REFUSED_LEDGER]
    made = prepare(announce=said.append)
    cases, counts = read_metadata(made)["cases"]["test"], read_metadata(made)["split"]["counts"]["test"]
    assert f"test: {cases} cases, {counts - cases} controls" in said
    (line,) = {line for line in said if line.startswith("an AUROC of 0.80")}
    assert 0.03 < float(line.split("± ")[1].split()[0]) < 0.3


def test_cohort_parquet_has_the_rows_of_the_datasets_patients(ehr, prepare):
    made = prepare(minimum_codes=3)
    rows = pl.read_parquet(made / COHORT_TABLE)
    selected, _ = select_cohort(read_tables(ehr), load_spec("hf-later"))
    assert rows.columns == [*selected.columns, "split"]
    assert 0 < rows.height < selected.height  # the serialization lets some leave
    assert rows.drop("split").equals(selected.join(rows, on="patient_id", how="semi").sort("patient_id"))
    for split in SPLITS:
        opened, mine = open_token_store(made, split), rows.filter(split=split)
        by_id = np.argsort(opened.patient_id)
        assert [id.decode() for id in opened.patient_id[by_id]] == mine["patient_id"].to_list()
        assert (opened.outcomes["label"][by_id] == mine["label"].to_numpy()).all()


def test_labels_stand_in_for_a_spec(ehr, prepare, tmp_path, capsys):
    selected, _ = select_cohort(read_tables(ehr), load_spec("hf-later"))
    labels = selected.select(
        pl.col("patient_id").cast(pl.Int64).alias("subject_id"),
        "prediction_time",
        pl.col("label").cast(pl.Boolean).alias("boolean_value"),
    )
    folder = tmp_path / "labels"
    folder.mkdir()
    labels.write_parquet(folder / "0.parquet")
    said = []
    ours, theirs = prepare(), prepare(str(folder), "labelled", announce=said.append)
    assert f"labels: {labels.height:,} subjects, of whom {labels.height:,} are in the EHR tables" in said
    assert read_metadata(theirs)["cohort"]["name"] == "labels"
    assert read_metadata(theirs)["cases"] == read_metadata(ours)["cases"]
    for split in SPLITS:
        one, two = open_token_store(ours, split), open_token_store(theirs, split)
        assert np.array_equal(one.patient_id, two.patient_id)
        assert np.array_equal(one.code_ids, two.code_ids)
    describe([theirs])
    assert "labelled: the event is “MEDS labels labels”." in capsys.readouterr().out
    # Other labels in that folder are another dataset.
    labels.with_columns(~pl.col("boolean_value")).write_parquet(folder / "0.parquet")
    with pytest.raises(ValueError, match="is not replaced by another"):
        prepare(str(folder), "labelled")
    with pytest.raises(ValueError, match="labels labels, which say their time themselves"):
        prepare(str(folder), "labelled", gap_days=30)
    with pytest.raises(ValueError, match="got test_from 2013-01-01 and the labels labels"):
        prepare(str(folder), "labelled", test_from=date(2013, 1, 1))


def test_labels_of_nobody_in_the_tables_are_refused_as_such(prepare, tmp_path):
    labels = pl.DataFrame({"subject_id": ["s7"], "prediction_time": [date(2013, 1, 1)], "boolean_value": [True]})
    (tmp_path / "labels").mkdir()
    labels.write_parquet(tmp_path / "labels" / "0.parquet")
    with pytest.raises(ValueError, match="got 1 subjects, none of whom is there; give the labels of this source"):
        prepare(str(tmp_path / "labels"), "labelled")


def test_labels_make_a_cohort_on_the_command_line(ehr, pretraining, tmp_path, capsys, monkeypatch):
    ids = read_tables(ehr).patients["patient_id"]
    labels = pl.DataFrame({"subject_id": ids.cast(pl.Int64), "boolean_value": [n % 2 == 0 for n in range(len(ids))]})
    (tmp_path / "later").mkdir()
    labels.with_columns(prediction_time=datetime(2100, 1, 1)).write_parquet(tmp_path / "later" / "0.parquet")
    asked = f"cohort {ehr} {tmp_path / 'later'} c --pretraining-dataset {pretraining} --few-cases --data-dir {tmp_path}"
    for command in (asked, f"describe {tmp_path / 'disease_cohort' / 'c' / '1.0.0'} --out {tmp_path / 'shown'}"):
        monkeypatch.setattr(sys, "argv", ["medbert", *command.split()])
        main()
        assert "c: the event is “MEDS labels later”." in capsys.readouterr().out
    assert "MEDS labels later" in (tmp_path / "shown" / "table2.md").read_text()


def test_a_gap_can_be_asked_for_and_is_part_of_the_recipe(prepare):
    made = prepare(name="gap", gap_days=90)
    assert read_metadata(made)["cohort"]["input"]["gap_days"] == 90
    rows, ours = pl.read_parquet(made / COHORT_TABLE), pl.read_parquet(prepare() / COHORT_TABLE)
    both = rows.join(ours, on="patient_id", suffix="_at_once")
    assert (both["input_until"] <= both["input_until_at_once"]).all()
    assert (both["input_until"] < both["input_until_at_once"]).any()
    with pytest.raises(ValueError, match="gap_days must be at least 0: got -1; raise it"):
        prepare(name="gap", gap_days=-1)
    with pytest.raises(ValueError, match=r"asked for in cohort\.input\.gap_days: 90 → 30; choose another name"):
        prepare(name="gap", gap_days=30)


def test_a_split_by_time_keeps_everybody_in_his_split_or_lets_him_leave(prepare):
    day = date(2013, 1, 1)
    made, ours = prepare(name="later", test_from=day), prepare()
    rows, all_rows = pl.read_parquet(made / COHORT_TABLE), pl.read_parquet(ours / COHORT_TABLE)
    right = (pl.col("split") == "test") == (pl.col("prediction_time") >= day)
    assert rows.equals(all_rows.filter(right)) and 0 < rows.height < all_rows.height
    metadata = read_metadata(made)
    assert metadata["cohort"]["split"]["test_from"] == "2013-01-01"
    left = {line["rule"]: line["left"]["patients"] for line in json.loads((made / "ledger.json").read_text())["lines"]}
    is_test = all_rows["split"] == "test"
    wrong = all_rows.select(~right).to_series()
    assert left["serialization:predicted_late"] == (wrong & ~is_test).sum() > 0
    assert left["serialization:predicted_early"] == (wrong & is_test).sum() > 0
    assert metadata["split"]["counts"] == dict(rows["split"].value_counts().iter_rows())
    assert {name: len(open_token_store(made, name)) for name in SPLITS} == metadata["split"]["counts"]


def test_a_label_ahead_must_be_known_by_the_day_from_which_is_tested():
    at = [datetime(2014, 1, 1, 23, 59), datetime(2014, 1, 2), datetime(2015, 1, 1), datetime(2014, 12, 31, 23, 59)]
    time = np.array(at, "datetime64[us]").astype(np.int64)
    split = TemporalSplit(description="a year ahead", tag="ours", test_from=date(2015, 1, 2))
    for name, late in (("dhf-landmark", [False, True, True, True]), ("dhf", [False] * 4)):
        spec = replace(load_spec(name), split=split)
        for place in (0, 1):
            lines = outside_period(spec, np.full(4, place), time)
            assert lines["predicted_late"][1].tolist() == late and not lines["predicted_early"][1].any()
        lines = outside_period(replace(spec, split=replace(split, test_from=date(2015, 1, 1))), np.full(4, 2), time)
        assert lines["predicted_early"][1].tolist() == [True, True, False, True]
        assert not lines["predicted_late"][1].any()


@pytest.mark.parametrize(
    ("name", "change", "last_known"),
    [
        ("dhf", {}, "2014-12-31T23:59:59.999998"),  # an index at midnight is of the new day
        ("paca", {"gap_days": 30}, "2014-12-02T23:59:59.999998"),  # 1 µs later the index is of 1 January
        ("los-next", {}, "2014-12-23T23:59:59.999998"),  # over 7 days is known on the eighth
        ("readmission-30d", {}, "2014-12-01T23:59:59.999999"),
        ("dhf-landmark", {}, "2013-12-31T23:59:59.999999"),
    ],
)
def test_what_the_label_says_must_have_happened_by_then(name, change, last_known):
    split = TemporalSplit(description="later", tag="ours", test_from=date(2015, 1, 1))
    spec = load_spec(name)
    spec = replace(spec, split=split, input=replace(spec.input, **change))
    last = np.datetime64(last_known, "us")
    time = np.array([last, last + np.timedelta64(1, "us")]).astype(np.int64)
    assert outside_period(spec, np.zeros(2, int), time)["predicted_late"][1].tolist() == [False, True]


@pytest.mark.parametrize("gap", [0, 1, 30])
def test_with_a_gap_it_is_the_day_of_the_index_that_counts(gap):
    spec = load_spec("paca")
    split = TemporalSplit(description="later", tag="ours", test_from=date(2015, 1, 1))
    spec = replace(spec, split=split, input=replace(spec.input, gap_days=gap))
    early = drawn.visit("2014-01-01", "401.9")
    people = {
        of: drawn.person(early, drawn.visit(of, "157.0"), born="1950-01-01") for of in ("2014-12-31", "2015-01-01")
    }
    frame, _ = select_cohort(drawn.tables_of(people), spec)
    assert frame["patient_id"].to_list() == ["2014-12-31", "2015-01-01"]
    time = frame["prediction_time"].to_numpy().astype("datetime64[us]").astype(np.int64)
    assert outside_period(spec, np.zeros(2, int), time)["predicted_late"][1].tolist() == [False, True]


def test_a_split_by_time_needs_days(prepare, tmp_path):
    write_tables(made_tables(40, dates=False), tmp_path / "undated")
    with pytest.raises(ValueError, match="split 'test_from: 2013-01-01' needs days: the source has no dates"):
        prepare(name="later", ehr_directory=tmp_path / "undated", test_from=date(2013, 1, 1))


def test_what_is_missing_is_said_or_refused_before_any_work(ehr, prepare, tmp_path):
    tables, said = read_tables(ehr), []
    for name, present in (("drugs", {"measurements": None}), ("nothing", {"measurements": None, "medications": None})):
        write_tables(replace(tables, **present), tmp_path / name)
    with pytest.raises(ValueError, match="rule diabetes_unverified has nothing to rest on"):
        prepare("dhf", ehr_directory=tmp_path / "nothing")
    with pytest.raises(ValueError, match="must have cases and controls"):  # nobody here has diabetes twice
        prepare("dhf", ehr_directory=tmp_path / "drugs", announce=said.append)
    assert said[0] == "no measurements table: rule diabetes_unverified rests on drugs alone"
    nameless = tables.medications.with_columns(ingredient=pl.lit(None, pl.String))
    write_tables(replace(tables, medications=nameless), tmp_path / "nameless")
    with pytest.raises(ValueError, match="must have cases and controls"):
        prepare("dhf", ehr_directory=tmp_path / "nameless", announce=said.append)
    assert "no ingredient in medications: rule diabetes_unverified rests on laboratory results alone" in said
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then("ingredient")
    write_tables(replace(tables, medications=tables.medications.with_columns(ingredient=half)), tmp_path / "half")
    with pytest.raises(ValueError, match="must have cases and controls"):
        prepare("dhf", ehr_directory=tmp_path / "half", announce=said.append)
    assert any(line.startswith("50.") and line.endswith("% of medications have ingredient: the others are no evidence "
               "for any rule") for line in said)  # fmt: skip


@pytest.fixture
def command(ehr, pretraining, tmp_path, capsys, monkeypatch):
    """`medbert cohort` of the made tables or others: what it printed, its error, its exit code (None: it went well)."""

    def run(cohort, *more, tables=ehr):
        words = ["cohort", tables, cohort, "hf", "--pretraining-dataset", pretraining, "--data-dir", tmp_path, *more]
        monkeypatch.setattr(sys, "argv", ["medbert", *map(str, words)])
        code = None
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        said = capsys.readouterr()
        return said.out, said.err, code

    return run


def test_a_refused_cohort_prints_its_ledger_and_writes_its_review(command, tmp_path):
    folder = tmp_path / "disease_cohort" / "hf"
    out, error, code = command("hf-later", "--review", "3", "--workers", "1")
    assert code == 2 and "must have at least 50 test cases" in error
    assert Ledger.from_dict(json.loads((folder / REFUSED_LEDGER).read_text())).render() in out
    review = folder / REFUSED_REVIEW
    assert f"chart review in {review / PAGE}" in out and "case 1" in (review / PAGE).read_text()
    assert (review / KEY).read_text().startswith("name,patient_id")
    # Another refusal without a review, and a cohort that is made, leave none that is of another one.
    out, _, code = command("hf-later")
    assert code == 2 and "chart review" not in out and not review.exists()
    command("hf-later", "--review", "3")
    _, _, code = command("hf-later", "--few-cases")
    assert code is None and not (folder / REFUSED_LEDGER).exists() and not review.exists()


def test_a_spec_that_finds_nothing_is_not_told_to_take_more_patients(ehr, prepare, tmp_path):
    tables = read_tables(ehr)
    foreign = tables.diagnoses.with_columns(code_system=pl.lit("SNOMED"))
    write_tables(replace(tables, diagnoses=foreign), tmp_path / "foreign")
    rows = f"{foreign.height:,}"
    with pytest.raises(RefusedCohort) as refused:
        prepare(ehr_directory=tmp_path / "foreign", unknown_code_limit=1.0)
    assert (
        f"0 of {rows} diagnoses are of a system that the spec names (ICD9CM, ICD10CM; the tables have SNOMED {rows})"
    ) in str(refused.value)
    assert "take more" not in str(refused.value)


def test_a_name_that_nobody_knows_is_refused_before_any_work(prepare, tmp_path):
    spec = load_spec("hf-later").to_dict()
    spec["code_sets"][0]["prefixes"][0] = "ICD9/428"
    (tmp_path / "mine.yaml").write_text(json.dumps(spec))
    with pytest.raises(
        ValueError, match=r"code_sets\[heart_failure\]\.prefixes: no code system 'ICD9'; the nearest is"
    ):
        prepare(str(tmp_path / "mine.yaml"))
    assert not (tmp_path / "disease_cohort").exists()


def test_no_rules_are_said_when_the_dataset_is_made(prepare, tmp_path):
    spec, said = load_spec("los-next").to_dict() | {"rules": []}, []
    (tmp_path / "mine.yaml").write_text(json.dumps(spec))
    prepare(str(tmp_path / "mine.yaml"), announce=said.append)
    assert "rules: none; everybody who has an index, a label and an input is in" in said
