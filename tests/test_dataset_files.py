"""A dataset knows its files by what is in them, whatever they are called and however long they are."""

import json
import shutil
from pathlib import Path

import pytest
from made_datasets import Drawn, write_drawn
from made_ehr import made_tables
from prepared_datasets import prepare_pretraining

from medbert_jax.attrition.files import read_attrition
from medbert_jax.chart_review.page import write_review
from medbert_jax.cli import main as medbert
from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.data.token_store import open_token_store, read_metadata, read_vocabulary
from medbert_jax.description.descriptives import describe_dataset
from medbert_jax.disk.seals import SUMS, check_seal, sealed
from medbert_jax.disk.whole_files import sha256_of
from medbert_jax.ehr.tables import read_source, write_tables
from medbert_jax.evaluation.held_out import evaluate_test
from medbert_jax.training.cohort_data import load_cohort
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.pretraining_data import load_split
from tfds_builders.excluded_cohort import find_excluded

CODES = ("ICD10CM/A", "ICD10CM/B")
STORED = Path(__file__).parent / "stored" / "0.1.0"


def quiet(text):
    """Say nothing."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """EHR tables and two datasets of them: the same patients, splits, codes and sizes, another order within visits."""
    folder = tmp_path_factory.mktemp("made")
    write_tables(made_tables(80, seed=3), folder / "ehr", shards=2)
    settings = {"data_dir": folder, "workers": 1, "announce": quiet}
    mine = prepare_pretraining(folder / "ehr", "mine", **settings)
    shuffled = SerializationConfig(code_order="random")
    other = prepare_pretraining(folder / "ehr", "other", serialization=shuffled, **settings)
    return folder / "ehr", mine, other


@pytest.fixture
def copied(made, tmp_path):
    """Copies of the two, without their token stores."""
    without = shutil.ignore_patterns("token_store")
    return [shutil.copytree(one, tmp_path / one.parent.name, ignore=without) for one in made[1:]]


def take_records(mine: Path, other: Path) -> list[str]:
    names = sorted(path.name for path in other.glob("*-train.array_record-*"))
    for name in names:
        assert (mine / name).stat().st_size == (other / name).stat().st_size  # a size says nothing
        shutil.copy(other / name, mine / name)
    return names


def edit_metadata(dataset: Path, **changes) -> None:
    path = dataset / "metadata.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_dataset_is_made_with_the_sums_of_all_its_files(made):
    for dataset in made[1:]:
        metadata = read_metadata(dataset)
        assert metadata[SUMS] == {name: sha256_of(dataset / name) for name in metadata["files"]}
        assert {"vocabulary.tsv", "ledger.json"} < metadata[SUMS].keys() and len(metadata[SUMS]) > 4
        assert sealed(metadata) == metadata


def test_records_of_another_dataset_are_refused_by_name(made, copied):
    mine, other = copied
    theirs, ours = read_metadata(other), read_metadata(mine)
    assert theirs["split"] == ours["split"] and theirs["vocabulary_hash"] == ours["vocabulary_hash"]
    names = take_records(mine, other)
    with pytest.raises(ValueError, match="written with: got others as ") as refused:
        open_token_store(mine, "train")
    assert all(name in str(refused.value) for name in names) and "copy them again" in str(refused.value)
    assert not (mine / "token_store" / "train").exists()
    open_token_store(mine, "validation")  # whose files are its own
    with pytest.raises(ValueError, match="got others as"):
        load_split(PretrainConfig(dataset=str(mine)), read_vocabulary(mine), "train", groups=1)
    with pytest.raises(ValueError, match="got others as"):
        describe_dataset(mine)
    # What the message says to do does not end in "the dataset is there already".
    place = mine.parent / "data" / "ehr_pretraining" / "mine" / "1.0.0"
    shutil.copytree(mine, place)
    with pytest.raises(ValueError, match=f"written: got {len(names)} that are not in .*00000-of-00002 is another one"):
        prepare_pretraining(made[0], "mine", data_dir=mine.parent / "data", workers=1, announce=quiet)


def test_a_token_store_that_is_there_is_of_the_metadata_whatever_the_records_are(made, copied):
    _, whole, theirs = made
    mine = copied[0]
    before = open_token_store(mine, "train").code_ids.copy()
    take_records(mine, copied[1])
    assert (open_token_store(mine, "train").code_ids == before).all()
    # That of another dataset is not taken for it: it says whose it is, and the records are asked.
    shutil.rmtree(mine / "token_store")
    shutil.copytree(theirs / "token_store", mine / "token_store")
    with pytest.raises(ValueError, match="got others as"):
        open_token_store(mine, "train")
    assert (open_token_store(whole, "train").code_ids == before).all()


def read_by_attrition(dataset):
    return read_attrition([dataset])


def read_by_token_store(dataset):
    return open_token_store(dataset, "train")


@pytest.mark.parametrize("read", [read_metadata, read_by_token_store, describe_dataset, read_by_attrition])
@pytest.mark.parametrize("changes", [{"dataset_hash": "f" * 64}, {"races": ["Jade"]}, {"time_is_ordinal": True}])
def test_metadata_that_were_edited_are_refused(copied, read, changes):
    mine = copied[0]
    read(mine)
    edit_metadata(mine, **changes)
    with pytest.raises(ValueError, match=r"metadata\.json must be as it was written: got .* own_sha256 .*; put the"):
        read(mine)


def test_a_ledger_of_another_dataset_is_refused(made, copied):
    mine = copied[0]
    ledger = json.loads((mine / "ledger.json").read_text())
    (mine / "ledger.json").write_text(json.dumps(ledger | {"title": ledger["title"] + "!"}))
    for read in (read_by_attrition, describe_dataset):
        with pytest.raises(ValueError, match=r"got others as ledger\.json"):
            read(mine)


# ── Cohorts: every split, and the members beside them ─────────────────────────────────────────────────────────────────


def drawn_cohort(folder: Path, code: int, **metadata) -> Path:
    """Two patients a split; datasets of another code have records of the same sizes."""
    splits = {
        split: [Drawn([(0, 1, 1, [16, code])], event=case, id=f"{split}{case}") for case in (0, 1)]
        for split in ("train", "validation", "test")
    }
    metadata.setdefault("cohort", {"name": "drawn", "outcome": {"description": "a drawn disease"}})
    return write_drawn(folder / "1.0.0", splits, kind="cohort", codes=CODES, **metadata)


def test_fine_tuning_and_evaluation_refuse_records_of_another_cohort(tmp_path):
    mine, other = drawn_cohort(tmp_path / "mine", 16), drawn_cohort(tmp_path / "other", 17)
    name = "drawn-{}.array_record-00000-of-00001"
    shutil.copy(other / name.format("test"), mine / name.format("test"))
    assert len(load_cohort(mine).train) == 2
    with pytest.raises(ValueError, match="got others as drawn-test"):
        evaluate_test(mine, lambda patients: [0.5] * len(patients), tmp_path / "predictions" / "a.parquet")
    shutil.rmtree(mine / "token_store")
    shutil.copy(other / name.format("validation"), mine / name.format("validation"))
    with pytest.raises(ValueError, match="got others as drawn-validation"):
        load_cohort(mine)


def test_members_of_another_cohort_are_refused(made, tmp_path):
    source = {"content_hash": read_source(made[0]).content_hash}
    cohort = drawn_cohort(tmp_path / "mine", 16, source=source)
    (cohort / "cohort.parquet").write_bytes(b"mine")
    metadata = read_metadata(cohort)
    metadata = metadata | {SUMS: metadata[SUMS] | {"cohort.parquet": sha256_of(cohort / "cohort.parquet")}}
    metadata |= {"cohort": {"name": "drawn", "rules": []}}
    (cohort / "metadata.json").write_text(json.dumps(sealed(metadata)))
    assert find_excluded(cohort, read_source(made[0])).name == "drawn"
    (cohort / "cohort.parquet").write_bytes(b"other")
    with pytest.raises(ValueError, match=r"got others as cohort\.parquet .*; copy them again"):
        find_excluded(cohort, read_source(made[0]))
    with pytest.raises(ValueError, match=r"got others as cohort\.parquet .*; copy them again"):
        write_review(made[0], cohort, 1)


# ── Earlier ones ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_dataset_without_sums_is_read_as_it_is_and_told_once(tmp_path):
    dataset, told = shutil.copytree(STORED / "dataset", tmp_path / "dataset"), []
    assert SUMS not in read_metadata(dataset)
    assert len(open_token_store(dataset, "train", tell=told.append)) == 95
    (line,) = told
    assert line.startswith("the records of split train are taken as they are: metadata.json of ") and "again" in line
    open_token_store(dataset, "train", tell=told.append)
    assert len(told) == 1
    read_attrition([dataset])


def test_training_tells_of_a_dataset_without_sums(tmp_path, capsys):
    cohort = shutil.copytree(STORED / "cohort", tmp_path / "cohort")
    load_cohort(cohort)
    told = [line for line in capsys.readouterr().err.splitlines() if "taken as they are" in line]
    assert [line.split()[4] for line in told] == ["train", "validation"]


def test_a_seal_is_of_the_content_and_not_of_the_layout(tmp_path):
    said = sealed({"b": [1, 2.5, None], "a": {"ä": True}})
    again = json.loads(json.dumps(said, indent=3, sort_keys=True))
    check_seal(tmp_path / "x.json", again, "")
    assert sealed(again) == said
    for name in ("a", "b"):
        with pytest.raises(ValueError, match=r"x\.json must be as it was written"):
            check_seal(tmp_path / "x.json", again | {name: 0}, "")


# ── Where a token store is kept ───────────────────────────────────────────────────────────────────────────────────────


def test_describe_keeps_the_token_store_of_a_dataset_in_the_cache(tmp_path, monkeypatch, capsys):
    cohort, cache = drawn_cohort(tmp_path / "mine", 17), tmp_path / "cache"
    before = sorted(cohort.rglob("*"))
    monkeypatch.setattr("sys.argv", ["medbert", "describe", str(cohort), "--cache-dir", str(cache)])
    medbert()
    assert "patient 1" in capsys.readouterr().out
    assert sorted(cohort.rglob("*")) == before
    assert {path.parent.name for path in cache.rglob("store.json")} == {"train", "validation", "test"}
