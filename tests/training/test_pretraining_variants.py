"""What else a pretraining may be given than its dataset says: other labels, and codes without their patients."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from made_datasets import write_dataset
from made_sequences import TINY_MODEL, VOCABULARY_SIZE, made_sequences

import run_pretrain
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.pretraining_data import load_split
from medbert_jax.training.run_directory import RunDirectoryError
from medbert_jax.training.stored_config import read_config

CODES = tuple(f"ICD10CM/{number}" for number in range(VOCABULARY_SIZE - FIRST_CODE))
VOCABULARY = Vocabulary(CODES, np.ones(len(CODES), np.int64), ("",) * len(CODES))
SIZES = {"train": 60, "validation": 20, "test": 10}


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    splits = {
        name: replace(one, patient_id=np.array([f"{name}{number}".encode() for number in range(len(one))]))
        for name, one in ((name, made_sequences(patients, seed)) for seed, (name, patients) in enumerate(SIZES.items()))
    }
    return write_dataset(
        tmp_path_factory.mktemp("made") / "p" / "1.0.0",
        splits,
        kind="pretraining",
        vocabulary=VOCABULARY,
        preset="paper",
    )


@pytest.fixture
def config(dataset, tmp_path):
    return PretrainConfig(
        dataset=str(dataset),
        run=str(tmp_path / "run"),
        model=TINY_MODEL,
        rows=RowsConfig(batch_size=16, short_row=32),
        steps=2,
        warmup_share=0.5,
        checkpoint_every=2,
        evaluate_every=2,
    )


def split(config, name="train"):
    return load_split(config, VOCABULARY, name, groups=1)[0]


def write_labels(path, names=SIZES, *, label=lambda number: number % 2) -> str:
    rows = [(f"{name}{number}", label(number)) for name in names for number in reversed(range(SIZES[name]))]
    pl.DataFrame(rows, schema=["patient_id", "label"], orient="row").write_parquet(path)
    return str(path)


def test_labels_of_a_file_take_the_place_of_the_prolonged_stays(config, tmp_path):
    path = write_labels(tmp_path / "labels.parquet")
    for name in ("train", "validation"):
        plain, other = split(config, name), split(replace(config, patient_labels=path), name)
        wanted = {f"{name}{number}".encode(): number % 2 for number in range(SIZES[name])}
        assert other.outcomes["prolonged_los"].tolist() == [wanted[one] for one in other.patient_id.tolist()]
        assert plain.outcomes["prolonged_los"].tolist() != other.outcomes["prolonged_los"].tolist()
        assert other.outcomes["prolonged_los"].dtype == np.int32
        np.testing.assert_array_equal(plain.code_ids, other.code_ids)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"names": ("train",)}, "got 20 of 20 patients without a label, 0 with another"),
        ({"label": lambda number: 2}, "got 0 of 20 patients without a label, 20 with another"),
    ],
)
def test_labels_that_are_not_of_these_patients_are_refused(config, tmp_path, settings, words):
    path = write_labels(tmp_path / "labels.parquet", **settings)
    with pytest.raises(ValueError, match=words):
        split(replace(config, patient_labels=path), "validation")


def test_labels_that_are_said_twice_or_no_file_of_labels_are_refused(config, tmp_path):
    twice = write_labels(tmp_path / "twice.parquet", ("train", "train"))
    with pytest.raises(ValueError, match="0 with another and 60 again in"):
        split(replace(config, patient_labels=twice))
    (tmp_path / "text").write_text("no Parquet")
    with pytest.raises(ValueError, match="must be a Parquet file with patient_id and label"):
        split(replace(config, patient_labels=str(tmp_path / "text")))


def test_exchanged_codes_keep_their_places_and_leave_their_patients(config):
    plain, exchanged = split(config), split(replace(config, exchange_codes=True))
    assert sorted(plain.code_ids.tolist()) == sorted(exchanged.code_ids.tolist())
    assert (plain.code_ids != exchanged.code_ids).mean() > 0.5
    np.testing.assert_array_equal(plain.visit_ids, exchanged.visit_ids)
    # Each split by itself, the same ones in every process.
    held_out = split(replace(config, exchange_codes=True), "validation")
    assert sorted(held_out.code_ids.tolist()) == sorted(split(config, "validation").code_ids.tolist())
    np.testing.assert_array_equal(held_out.code_ids, split(replace(config, exchange_codes=True), "validation").code_ids)


def test_a_run_says_which_labels_it_has_and_goes_on_with_no_others(config, tmp_path):
    config = replace(config, patient_labels=write_labels(tmp_path / "labels.parquet"))
    run = run_pretrain.main(config)
    assert len(read_config(run)["patient_labels_sha256"]) == 64
    moved = write_labels(tmp_path / "moved.parquet")
    run_pretrain.main(replace(config, patient_labels=moved))  # the same ones, elsewhere
    others = write_labels(tmp_path / "others.parquet", label=lambda number: 1 - number % 2)
    with pytest.raises(RunDirectoryError, match="patient_labels_sha256"):
        run_pretrain.main(replace(config, patient_labels=others))
    with pytest.raises(RunDirectoryError):
        run_pretrain.main(replace(config, patient_labels=""))
