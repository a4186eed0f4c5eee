"""`medbert attrition`: what it draws of folders, where it writes, and what it says of folders that are damaged."""

import csv
import json
from pathlib import Path

import pytest

from medbert_jax.attrition.files import read_attrition, write_attrition
from medbert_jax.attrition.ledger import Counts, Ledger


@pytest.fixture
def folders(tmp_path) -> tuple[Path, Path]:
    """EHR tables and a cohort, as far as the command reads them."""
    read = Ledger.start("read omop", patients=1_000, visits=3_000, codes=9_000)
    read.leave("birth", "Before birth", patients=100, visits=200, codes=100)
    made = Ledger.start("omop → hf", patients=900, visits=2_800, codes=8_900)
    made.leave("few", "Fewer than 3 codes", tag="paper", patients=100, visits=170, codes=200)
    for folder, ledger in (("ehr", read), ("hf", made)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "ledger.json").write_text(json.dumps(ledger.to_dict()))
    metadata = {
        "split": {"counts": {"train": 560, "validation": 80, "test": 160}},
        "cases": {"train": 60, "validation": 7, "test": 20},
    }
    (tmp_path / "hf" / "metadata.json").write_text(json.dumps(metadata))
    return tmp_path / "ehr", tmp_path / "hf"


def rewrite(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_dataset_ends_in_its_splits_and_a_cohort_in_cases_and_controls(folders):
    ehr, dataset = folders
    assert read_attrition([ehr]).branches == {}
    assert read_attrition([ehr, dataset]).branches == {
        "train": {"cases": Counts(60), "controls": Counts(500)},
        "validation": {"cases": Counts(7), "controls": Counts(73)},
        "test": {"cases": Counts(20), "controls": Counts(140)},
    }
    metadata = dataset / "metadata.json"
    metadata.write_text(json.dumps({"split": json.loads(metadata.read_text())["split"]}))
    splits = {"train": Counts(560), "validation": Counts(80), "test": Counts(160)}
    assert read_attrition([dataset]).branches == splits
    rewrite(metadata, split={"counts": {"train": 560, "validation": 80, "test": 161}})
    with pytest.raises(ValueError, match='"omop → hf" keeps and train, validation, test are 800 and 801 patients'):
        read_attrition([dataset])


@pytest.mark.parametrize(
    ("out", "names"),
    [
        ("run.v2", ["run.v2.csv", "run.v2.svg"]),
        ("run", ["run.csv", "run.svg"]),
        ("run.svg", ["run.csv", "run.svg"]),
        ("new/run.2024.01", ["run.2024.01.csv", "run.2024.01.svg"]),
    ],
)
def test_files_have_the_name_that_was_asked_for(folders, tmp_path, out, names):
    for mine in ("run.csv", "run.svg") if "run.v2" in out else ():
        (tmp_path / mine).write_text("mine")
    written = write_attrition(read_attrition(folders), tmp_path / out)
    assert [path.name for path in written] == names and all(path.is_file() for path in written)
    if "run.v2" in out:
        assert (tmp_path / "run.csv").read_text() == "mine"
    rows = list(csv.DictReader(written[0].read_text(encoding="utf-8").splitlines()))
    assert [(row["text"], row["patients_kept"]) for row in rows[2:5]] == [
        ("train", "560"), ("train: cases", "60"), ("train: controls", "500")
    ]  # fmt: skip
    assert written[1].read_text(encoding="utf-8").count(">controls</text>") == 3


def test_shared_files_hide_small_groups_of_cases(folders, tmp_path):
    written = write_attrition(read_attrition(folders), tmp_path / "shared", share=True)
    table = csv.DictReader(written[0].read_text(encoding="utf-8").splitlines())
    rows = {row["text"]: row["patients_kept"] for row in table}
    assert (rows["validation"], rows["validation: cases"], rows["validation: controls"]) == ("80", "<11", "hidden")
    assert "&lt;11 patients" in written[1].read_text(encoding="utf-8")


@pytest.mark.parametrize("content", [b"", b"{", bytes(range(128, 168)), b"[]", b'{"title": 1}'])
def test_a_damaged_file_is_named_with_its_cure(folders, content):
    ehr, dataset = folders
    metadata = (dataset / "metadata.json").read_bytes()
    (dataset / "metadata.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"got {dataset / 'metadata.json'}, which does not; `medbert prepare`"):
        read_attrition(folders)
    (dataset / "metadata.json").write_bytes(metadata)
    (ehr / "ledger.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"as it was written: got {ehr / 'ledger.json'} with .*; `medbert ingest`"):
        read_attrition(folders)
    (ehr / "ledger.json").unlink()
    with pytest.raises(FileNotFoundError, match=rf"must hold ledger\.json: got {ehr}; `medbert ingest`"):
        read_attrition(folders)


def test_counts_that_differ_within_a_ledger_are_told_with_its_path(folders):
    rewrite(folders[0] / "ledger.json", kept={"patients": 901, "visits": 2_800, "codes": 8_900})
    with pytest.raises(ValueError, match=r"ehr/ledger\.json with this: .*difference 0"):
        read_attrition(folders)
