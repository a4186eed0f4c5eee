"""The cohort builder on a made source: what it inherits, labels, cuts, and the cohorts that it refuses."""

import json
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
import tensorflow_datasets as tfds
import yaml
from made_ehr import OUTCOME, made_tables
from prepared_datasets import prepare_cohort, prepare_pretraining

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.data.serialization import SerializationConfig, serialize
from medbert_jax.data.token_store import open_token_store, read_metadata
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.ehr.hashing import SPLITS, assign_split, patient_hash
from medbert_jax.ehr.tables import read_tables, write_tables
from medbert_jax.evaluation.held_out import evaluate_test
from medbert_jax.training.cohort_data import load_cohort
from tfds_builders.disease_cohort.disease_cohort_dataset_builder import REFUSED_LEDGER

KEY = "a key of this site"


def quiet(text):
    """Say nothing."""


@pytest.fixture(scope="module")
def ehr(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source") / "ehr"
    write_tables(made_tables(500, seed=21), directory, shards=2)
    return directory


@pytest.fixture(scope="module")
def pretraining(ehr, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    ratios = (0.6, 0.15, 0.25)
    return prepare_pretraining(ehr, "made", data_dir=data, split_key=KEY, ratios=ratios, announce=quiet)


@pytest.fixture(scope="module")
def prepare(pretraining):
    """Prepare a cohort that inherits from the pretraining dataset."""

    def run(ehr, cohort, name, data_dir, **settings):
        settings = {"pretraining_dataset": pretraining, "announce": quiet, "few_cases": True} | settings
        return prepare_cohort(ehr, cohort, name, data_dir=data_dir, **settings)

    return run


@pytest.fixture(scope="module")
def cohort(ehr, prepare, tmp_path_factory):
    return prepare(ehr, "hf-later", "hf", tmp_path_factory.mktemp("cohorts"))


def test_sequences_are_those_of_the_selected_patients_before_their_cut(ehr, cohort):
    vocabulary = Vocabulary.read(cohort / "vocabulary.tsv")
    races = tuple(read_metadata(cohort)["races"])
    tables = read_tables(ehr)
    selected, _ = select_cohort(tables, load_spec("hf-later"))
    config = SerializationConfig(minimum_codes=1)
    expected, _ = serialize(tables, vocabulary, config, until=selected, races=races)
    shard = patient_hash(expected.patient_id, "shard") % np.uint64(2)
    expected = expected.take(np.argsort(shard, kind="stable"))
    split = assign_split(expected.patient_id, key=KEY, ratios=(0.6, 0.15, 0.25))
    for place, name in enumerate(SPLITS):
        opened, wanted = open_token_store(cohort, name), expected.take(split == place)
        for column in set(wanted.__dataclass_fields__) - {"outcomes"}:
            assert np.array_equal(getattr(opened, column), getattr(wanted, column)), column
        assert list(opened.outcomes) == ["label", "index_day", "index_order", "prediction_time"]
        for outcome, values in wanted.outcomes.items():
            assert np.array_equal(opened.outcomes[outcome], values)
            assert opened.outcomes[outcome].dtype == values.dtype
        assert 0 < opened.outcomes["label"].mean() < 1


def test_nothing_of_the_index_visit_or_after_it_is_in_the_input(ehr, cohort):
    outcome = Vocabulary.read(cohort / "vocabulary.tsv").encode([OUTCOME])[0]
    assert outcome != UNK
    admitted = read_tables(ehr).visits.select("patient_id", "order", "admit_time")
    for split in SPLITS:
        opened = open_token_store(cohort, split)
        assert outcome not in opened.code_ids
        assert (np.diff(opened.visit_offsets) < opened.outcomes["index_order"]).all()
        last = opened.visit_days[opened.visit_offsets[1:] - 1]
        assert (last <= opened.outcomes["index_day"]).all()
        frame = pl.DataFrame(
            {
                "patient_id": [patient.decode() for patient in opened.patient_id],
                "order": np.asarray(opened.outcomes["index_order"]),
                "time": np.asarray(opened.outcomes["prediction_time"]),
            }
        )
        index = frame.join(admitted, on=["patient_id", "order"], how="left", maintain_order="left")
        assert (index["admit_time"].to_physical() - index["time"] == 1).all()  # one microsecond before


def test_test_patients_are_test_patients_of_the_pretraining(pretraining, cohort):
    split_of = {}
    for split in SPLITS:
        split_of |= dict.fromkeys(open_token_store(pretraining, split).patient_id.tolist(), split)
    shared = 0
    for split in SPLITS:
        ids = open_token_store(cohort, split).patient_id.tolist()
        assert {split_of.get(patient, split) for patient in ids} == {split}
        shared += sum(patient in split_of for patient in ids)
    assert shared > 200


def test_what_the_metadata_inherits_and_adds(pretraining, cohort):
    ours, theirs = read_metadata(cohort), read_metadata(pretraining)
    assert cohort.parts[-3:] == ("disease_cohort", "hf", "1.0.0")
    assert (cohort / "vocabulary.tsv").read_bytes() == (pretraining / "vocabulary.tsv").read_bytes()
    assert ours["kind"] == "cohort" and ours["preset"] == theirs["preset"]
    assert ours["vocabulary_hash"] == theirs["vocabulary_hash"]
    assert ours["pretraining_dataset_hash"] == theirs["dataset_hash"] != ours["dataset_hash"]
    assert ours["serialization"] == theirs["serialization"] | {"minimum_codes": 1}
    assert {name: ours["split"][name] for name in ("key", "ratios")} == {"key": KEY, "ratios": [0.6, 0.15, 0.25]}
    assert ours["cohort"] == load_spec("hf-later").to_dict()
    assert dict(tfds.builder_from_directory(cohort).info.metadata) == ours
    for split in SPLITS:
        label = open_token_store(cohort, split).outcomes["label"]
        assert (ours["split"]["counts"][split], ours["cases"][split]) == (len(label), label.sum())


@pytest.mark.parametrize(("name", "flag"), [("hf-later", "related_heart_disease"), ("los-next", "died_at_index")])
def test_the_flagged_who_stay_are_counted_and_told(ehr, prepare, tmp_path, name, flag):
    said, tables = [], read_tables(ehr)
    hypertensive_heart_disease = pl.col("code").replace({"I10": "I11.9"})
    tables = replace(tables, diagnoses=tables.diagnoses.with_columns(hypertensive_heart_disease))
    write_tables(tables, tmp_path / "ehr", shards=2)
    # So many codes that the serialization lets some of the flagged leave.
    cohort = prepare(tmp_path / "ehr", name, name, tmp_path, minimum_codes=5, announce=said.append)
    frame, _ = select_cohort(tables, load_spec(name))
    flagged = set(frame.filter(f"flag_{flag}")["patient_id"].to_list())
    stay = {patient.decode() for split in SPLITS for patient in open_token_store(cohort, split).patient_id}
    assert 0 < len(flagged & stay) < len(flagged)
    flags = {flag: len(flagged & stay)} | ({"joined_stays": 0} if name == "los-next" else {})
    assert read_metadata(cohort)["flags"] == flags
    assert sorted(said[-1].removeprefix("kept and flagged: ").split(", ")) == [f"{id} {n}" for id, n in flags.items()]


def test_a_cohort_without_flags_says_nothing_of_them(ehr, prepare, tmp_path):
    said, spec = [], load_spec("hf-later").to_dict()
    spec["rules"] = [rule for rule in spec["rules"] if rule["action"] != "flag"]
    (tmp_path / "unflagged.yaml").write_text(yaml.safe_dump(spec))
    cohort = prepare(ehr, str(tmp_path / "unflagged.yaml"), "unflagged", tmp_path, announce=said.append)
    assert read_metadata(cohort)["flags"] == {} and not any("flagged" in line for line in said)


def test_one_ledger_leads_from_the_tables_to_the_dataset(ehr, cohort):
    ledger = Ledger.from_dict(json.loads((cohort / "ledger.json").read_text()))
    tables = read_tables(ehr)
    assert (ledger.came.patients, ledger.came.codes) == (500, len(tables.diagnoses))
    opened = [open_token_store(cohort, split) for split in SPLITS]
    assert ledger.kept.patients == sum(map(len, opened))
    assert ledger.kept.visits == sum(len(part.visit_days) for part in opened)
    assert ledger.kept.codes == sum(len(part.code_ids) for part in opened)
    rules = [line.rule for line in ledger.lines]
    assert rules[:2] == ["after_death", "no_visits"] and rules[-1] == "serialization:repeated_in_visit"


def test_tfds_reads_labels_and_times(cohort):
    source = tfds.builder_from_directory(cohort).as_data_source(split="test")
    opened = open_token_store(cohort, "test")
    for i, example in enumerate(source):
        assert all(example[name] == values[i] for name, values in opened.outcomes.items())


@pytest.mark.parametrize("name", ["los-next", "readmission-30d"])
def test_the_other_built_in_cohorts_go_the_same_way(ehr, prepare, tmp_path, name):
    cohort = prepare(ehr, name, name, tmp_path)
    assert len(open_token_store(cohort, "test")) > 20


def test_a_source_without_dates_says_so(prepare, tmp_path):
    write_tables(made_tables(300, seed=21, dates=False), tmp_path / "ehr")
    cohort = prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path)
    assert read_metadata(cohort)["time_is_ordinal"] is True
    outcomes = open_token_store(cohort, "test").outcomes
    assert (outcomes["index_day"] == -1).all()
    day = 86_400_000_000
    assert np.array_equal(outcomes["prediction_time"], outcomes["index_order"].astype(np.int64) * day)


def with_outcome(tables, patients):
    """The tables with the outcome's codes of these patients alone."""
    stays = (pl.concat_str("code_system", pl.lit("/"), "code") != OUTCOME) | pl.col("patient_id").is_in(patients)
    return replace(tables, diagnoses=tables.diagnoses.filter(stays))


@pytest.mark.parametrize("which", ["nobody", "one"])
def test_a_split_without_cases_is_refused_and_the_ledger_is_kept(prepare, tmp_path, which):
    tables = made_tables(200, seed=3)
    cases = select_cohort(tables, load_spec("hf-later"))[0].filter(pl.col("label") == 1)["patient_id"]
    write_tables(with_outcome(tables, [] if which == "nobody" else [cases[0]]), tmp_path / "ehr")
    with pytest.raises(ValueError, match=r"must have cases and controls: got cases train \d of \d+, validation"):
        prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path)
    folder = tmp_path / "disease_cohort" / "hf"
    assert [path.name for path in folder.iterdir()] == [REFUSED_LEDGER]
    ledger = Ledger.from_dict(json.loads((folder / REFUSED_LEDGER).read_text()))
    assert ledger.came.patients == 200
    # The next try, on better tables, takes it away.
    write_tables(tables, tmp_path / "ehr")
    assert prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path).is_dir()
    assert [path.name for path in folder.iterdir()] == ["1.0.0"]


def test_an_empty_cohort_is_refused(prepare, tmp_path):
    tables = made_tables(100, seed=3)
    first = tables.visits.filter(pl.col("order") == 1)
    diagnoses = tables.diagnoses.join(first, on="visit_id", how="semi")
    write_tables(
        replace(tables, visits=first, diagnoses=diagnoses, medications=None, measurements=None), tmp_path / "ehr"
    )
    with pytest.raises(ValueError, match="train 0 of 0, validation 0 of 0, test 0 of 0"):
        prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path)


def test_codes_unknown_to_the_vocabulary_are_shown_and_refused_above_the_limit(ehr, prepare, tmp_path):
    tables = read_tables(ehr)
    foreign = pl.when(pl.col("code_system") == "ICD9CM").then(pl.lit("ICD9GM")).otherwise("code_system")
    diagnoses = tables.diagnoses.with_columns(code_system=foreign)
    write_tables(replace(tables, diagnoses=diagnoses), tmp_path / "ehr")
    said = []
    with pytest.raises(ValueError, match=r"at most 30% of the codes may be unknown .*: got train 5"):
        prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path, unknown_code_limit=0.3, announce=said.append)
    assert not any("unknown" in line for line in said)
    assert not list(tmp_path.rglob("1.0.0"))
    cohort = prepare(tmp_path / "ehr", "hf-later", "hf", tmp_path, unknown_code_limit=0.6, announce=said.append)
    assert any(line.startswith("codes unknown to the vocabulary: train 5") for line in said)
    share = read_metadata(cohort)["unknown_code_share"]["test"]
    assert share == (open_token_store(cohort, "test").code_ids == UNK).mean() > 0.3


def test_a_longer_history_can_be_asked_for(ehr, cohort, prepare, tmp_path):
    longer = prepare(ehr, "hf-later", "hf", tmp_path, minimum_codes=5)
    sizes = [len(np.unique(open_token_store(longer, "test").take([i]).code_ids)) for i in range(20)]
    assert min(sizes) >= 5
    assert len(open_token_store(longer, "test")) < len(open_token_store(cohort, "test"))
    assert read_metadata(longer)["dataset_hash"] != read_metadata(cohort)["dataset_hash"]


def test_a_cohort_of_ones_own_is_a_yaml_file_and_does_not_replace_another(ehr, cohort, prepare, tmp_path):
    text = (SPECS_DIRECTORY / "hf-later.yaml").read_text().replace("minimum_codes: 1", "minimum_codes: 2")
    (tmp_path / "own.yaml").write_text(text)
    own = prepare(ehr, str(tmp_path / "own.yaml"), "own", tmp_path)
    assert read_metadata(own)["cohort"]["input"]["minimum_codes"] == 2
    with pytest.raises(ValueError, match="is not replaced by another"):
        prepare(ehr, str(tmp_path / "own.yaml"), "hf", cohort.parents[2])
    (tmp_path / "own.yaml").write_text(text.replace("minimum_codes: 2", "minimum_codes: 3"))
    with pytest.raises(
        ValueError, match=r"cohort\.input\.minimum_codes: 2 → 3; choose another name, or give --replace"
    ):
        prepare(ehr, str(tmp_path / "own.yaml"), "own", tmp_path)
    assert prepare(ehr, str(tmp_path / "own.yaml"), "own", tmp_path, replace=True) == own
    assert read_metadata(own)["cohort"]["input"]["minimum_codes"] == 3


def test_a_dataset_that_cannot_be_inherited_from_is_refused(ehr, pretraining, cohort, prepare, tmp_path):
    with pytest.raises(ValueError, match="inherits from a pretraining dataset: got one of kind cohort"):
        prepare(ehr, "hf-later", "hf", tmp_path, pretraining_dataset=cohort)
    with pytest.raises(FileNotFoundError, match=r"metadata\.json"):
        prepare(ehr, "hf-later", "hf", tmp_path, pretraining_dataset=tmp_path)
    other = tmp_path / "other"
    other.mkdir()
    (other / "metadata.json").write_bytes((pretraining / "metadata.json").read_bytes())
    vocabulary = Vocabulary.read(pretraining / "vocabulary.tsv")
    Vocabulary(vocabulary.codes[::-1], vocabulary.patients, vocabulary.titles).write(other / "vocabulary.tsv")
    with pytest.raises(ValueError, match=r"vocabulary\.tsv must be the one of metadata\.json"):
        prepare(ehr, "hf-later", "hf", tmp_path, pretraining_dataset=other)


def test_a_pretraining_can_do_without_a_cohort_and_serve_it_all_the_same(ehr, pretraining, cohort, prepare, tmp_path):
    settings = {"data_dir": tmp_path, "split_key": KEY, "ratios": (0.6, 0.15, 0.25), "announce": quiet}
    vocabulary = pretraining / "vocabulary.tsv"
    without = prepare_pretraining(ehr, "without", vocabulary=vocabulary, exclude_cohort=cohort, **settings)
    everywhere = np.concatenate([open_token_store(cohort, split).patient_id for split in SPLITS])
    gone = 0
    for split in SPLITS:
        before, after = (open_token_store(directory, split) for directory in (pretraining, without))
        stays = ~np.isin(before.patient_id, everywhere)
        assert 0 < stays.sum() < len(stays)
        assert np.array_equal(after.patient_id, before.patient_id[stays])
        assert np.array_equal(after.code_ids, before.take(stays).code_ids)
        gone += int((~stays).sum())
    lines = json.loads((without / "ledger.json").read_text(encoding="utf-8"))["lines"]
    (line,) = [line for line in lines if line["rule"] == "excluded_cohort"]
    assert line["left"]["patients"] == gone and "hf-later" in line["text"]
    recipe = read_metadata(without)["recipe"]["excluded_cohort"]
    assert recipe["dataset_hash"] == read_metadata(cohort)["dataset_hash"]
    # The same patients can then be fine-tuned from either pretraining: one vocabulary, one content.
    again = prepare(ehr, "hf-later", "again", tmp_path, pretraining_dataset=without)
    assert read_metadata(again)["dataset_hash"] == read_metadata(cohort)["dataset_hash"]
    assert read_metadata(again)["pretraining_dataset_hash"] == read_metadata(without)["dataset_hash"]


def test_a_cohort_that_cannot_be_left_out_is_refused(ehr, pretraining, cohort, tmp_path):
    settings = {"data_dir": tmp_path, "announce": quiet}
    with pytest.raises(ValueError, match="kind pretraining; pass DATA_DIR/disease_cohort"):
        prepare_pretraining(ehr, "a", exclude_cohort=pretraining, **settings)
    strangers = made_tables(60, seed=5)
    rename = pl.lit("other-") + pl.col("patient_id")
    tables = {name: table for name, table in vars(strangers).items() if isinstance(table, pl.DataFrame)}
    renamed = {name: table.with_columns(patient_id=rename) for name, table in tables.items()}
    # Of another source, whether it has the same ids or others.
    assert np.isin(strangers.patients["patient_id"], pl.read_parquet(cohort / "cohort.parquet")["patient_id"]).any()
    for of_another in (strangers, replace(strangers, **renamed)):
        write_tables(of_another, tmp_path / "others")
        with pytest.raises(ValueError, match=r"must be of these EHR tables.*got content hash [0-9a-f]{12} of the"):
            prepare_pretraining(tmp_path / "others", "b", exclude_cohort=cohort, **settings)
    table = tmp_path / "cohort" / "cohort.parquet"
    table.parent.mkdir()
    (table.parent / "metadata.json").write_bytes((cohort / "metadata.json").read_bytes())
    with pytest.raises(ValueError, match=r"its patients in cohort\.parquet: got none"):
        prepare_pretraining(ehr, "c", exclude_cohort=table.parent, **settings)


AHEAD = """
name: heart-failure-ahead
title: Heart failure within three years of the first encounter
description: Of those who leave before, nobody knows
code_sets: [{id: hf, description: Heart failure, tag: ours, prefixes: [ICD10CM/I50.9]}]
outcome: {codes: hf, from_day: 1, to_day: 1000, description: Heart failure, tag: ours}
index: {everyone: first_visit, description: The first, tag: ours}
input: {until: through_index, description: The first, tag: ours}
rules: []
"""


@pytest.fixture(scope="module")
def censored_cohort(prepare, tmp_path_factory):
    """Every third patient leaves 100 days after his first encounter."""
    folder, told = tmp_path_factory.mktemp("left"), []
    tables = made_tables(500, seed=21)
    first = tables.visits.group_by("patient_id").agg(start=pl.col("admit_time").min().dt.date()).sort("patient_id")
    leaves = pl.int_range(pl.len()) % 3 == 0
    end = pl.when(leaves).then(pl.col("start") + pl.duration(days=100)).otherwise(pl.date(2030, 1, 1))
    write_tables(replace(tables, follow_up=first.with_columns(end=end)), folder / "ehr", shards=2)
    (folder / "ahead.yaml").write_text(AHEAD)
    return prepare(folder / "ehr", str(folder / "ahead.yaml"), "ahead", folder, announce=told.append), told


def test_the_censored_are_in_the_dataset_and_neither_cases_nor_controls(censored_cohort):
    cohort, told = censored_cohort
    rows, metadata = pl.read_parquet(cohort / "cohort.parquet"), read_metadata(cohort)
    censored = rows.filter(pl.col("label") == -1)
    assert censored.height > 50 and set(censored["censored_day"]) <= set(range(101))
    assert rows.filter(pl.col("label") == 1)["event_day"].is_between(1, 1000).all()
    assert (
        rows.select(pl.sum_horizontal(pl.col("event_day", "death_day", "censored_day").is_not_null())).max().item() == 1
    )
    for split, counts in zip(SPLITS, (rows.filter(split=split) for split in SPLITS), strict=True):
        assert metadata["censored"][split] == (counts["label"] == -1).sum()
        assert metadata["cases"][split] == (counts["label"] == 1).sum()
        assert metadata["split"]["counts"][split] == counts.height
        (line,) = [line for line in told if line.startswith(f"{split}: ")]
        assert f"{(counts['label'] == 0).sum():,} controls" in line
        assert f"{metadata['censored'][split]:,} censored, of unknown label" in line


def test_weights_stand_for_the_censored(censored_cohort):
    rows = pl.read_parquet(censored_cohort[0] / "cohort.parquet")
    assert rows.filter(pl.col("label") == -1)["censoring_weight"].eq(0).all()
    known = rows.filter(pl.col("label") >= 0)
    assert (known["censoring_weight"] >= 1).all() and known["censoring_weight"].max() > 1.3
    assert known["censoring_weight"].sum() == pytest.approx(rows.height)


def test_nobody_is_trained_on_or_tested_whose_label_is_unknown(censored_cohort, tmp_path):
    cohort, _ = censored_cohort
    metadata, data = read_metadata(cohort), load_cohort(cohort)
    stored = open_token_store(cohort, "train").outcomes["label"]
    assert (stored == -1).sum() == metadata["censored"]["train"] > 0
    for split in (data.train, data.validation):
        assert set(np.unique(split.outcomes["label"])) == {0, 1}
    assert len(data.train) == len(stored) - metadata["censored"]["train"]
    found = evaluate_test(cohort, lambda patients: np.linspace(0.1, 0.9, len(patients)), tmp_path / "made.parquet")
    assert found["patients"] == metadata["split"]["counts"]["test"] - metadata["censored"]["test"]
