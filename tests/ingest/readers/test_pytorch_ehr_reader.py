"""Nested pickles as the scripts of pytorch_ehr write them → EHR tables: order, codes, splits, labels, refusals."""

import pickle

import polars as pl
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.pytorch_ehr import PytorchEhrOptions, read_labels
from medbert_jax.ingest.source_files import SourceError
from medbert_jax.quality.report import validate

TYPES = {"ICD9_428.0": 1, "ICD10_I50.9": 2, "ICD9_250.00": 3, "E11.9": 4}
# The newest visit first; 5 visits of two patients.
RECORDS = [
    ["canary81", 1, [[[0], [2]], [[31], [3, 1]], [[400], [1, 1]]]],
    [990077, 0, [[[0], [1]], [[7], [3]]]],
]
FLAT = [["p3", 0, [[0], [3]], [[5], [1, 3]]]]  # the visits beside the label, not in a list of their own


def write(folder, files, types=TYPES):
    folder.mkdir(exist_ok=True)
    for name, pickles in (files | ({} if types is None else {"d.types": [types]})).items():
        (folder / name).write_bytes(b"".join(pickle.dumps(value, -1) for value in pickles))
    return folder


def read(tmp_path, files, types=TYPES, order="newest-first", shards=1, **options):
    source = write(tmp_path / "source", files, types)
    ledger = ingest(source, tmp_path / "ehr", format="pytorch-ehr", shards=shards, workers=1,
                    options=PytorchEhrOptions(order, **options), announce=lambda line: None)  # fmt: skip
    return read_tables(tmp_path / "ehr"), {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def codes(tables) -> list[tuple]:
    visits = tables.visits.select("patient_id", "visit_id", "order")
    rows = tables.diagnoses.join(visits, on=["patient_id", "visit_id"])
    return sorted(rows.select("patient_id", "order", pl.concat_str("code_system", "code", separator="/")).rows())


FORWARD = [
    ("990077", 1, "ICD9CM/250.00"), ("990077", 2, "ICD9CM/428.0"), ("canary81", 1, "ICD9CM/428.0"),
    ("canary81", 2, "ICD9CM/250.00"), ("canary81", 2, "ICD9CM/428.0"), ("canary81", 3, "ICD10CM/I50.9"),
]  # fmt: skip


@pytest.mark.parametrize("shards", [1, 3])
def test_the_newest_visit_is_first_where_the_option_says_so(tmp_path, shards):
    tables, left = read(tmp_path, {"d.combined.train": [RECORDS]}, shards=shards)
    assert codes(tables) == FORWARD
    assert left == {"label_not_taken": Counts(codes=2), "duplicate_code": Counts(codes=1)}
    assert not tables.source.has_dates and tables.visits["admit_time"].null_count() == 5
    assert dict(pl.read_parquet(tmp_path / "ehr" / SPLITS_FILE).rows()) == dict.fromkeys(
        ["canary81", "990077"], "train"
    )
    assert "where those of ICD-9 come before 1" in tables.source.assumptions[-1]
    assert not validate(tmp_path / "ehr").failed


def test_the_oldest_visit_is_first_where_the_option_says_so(tmp_path):
    backward = [[*record[:2], record[2][::-1]] for record in RECORDS]
    tables, _ = read(tmp_path, {"d.combined.train": [backward]}, order="oldest-first")
    assert codes(tables) == FORWARD


def test_visits_beside_the_label_and_codes_as_text_without_types(tmp_path):
    named = {number: code for code, number in TYPES.items()}
    told = [[*record[:2], [[days, [named[code] for code in some]] for days, some in record[2]]] for record in RECORDS]
    tables, _ = read(tmp_path, {"d.pkl": [told]}, types=None)
    assert codes(tables) == FORWARD
    assert not (tmp_path / "ehr" / SPLITS_FILE).exists()
    tables, _ = read(tmp_path, {"d.pkl": [FLAT]})
    assert codes(tables) == [("p3", 1, "ICD9CM/250.00"), ("p3", 1, "ICD9CM/428.0"), ("p3", 2, "ICD9CM/250.00")]


def test_a_visit_without_codes_is_none_and_others_keep_their_order(tmp_path):
    tables, _ = read(tmp_path, {"d.pkl": [[["p", 0, [[[0], [1]], [[3], []], [[4], [3]]]]]]})
    assert codes(tables) == [("p", 1, "ICD9CM/250.00"), ("p", 2, "ICD9CM/428.0")]


def test_icd_without_a_version_leaves_or_is_told_by_its_shape(tmp_path):
    files = {"d.pkl": [[["p", 0, [[[0], [4, 1]]]]]]}
    tables, left = read(tmp_path, files)
    assert codes(tables) == [("p", 1, "ICD9CM/428.0")] and left["unreadable_code"] == Counts(codes=1)
    tables, left = read(tmp_path, files, us_icd=True)
    assert codes(tables) == [("p", 1, "ICD10CM/E11.9"), ("p", 1, "ICD9CM/428.0")] and "unreadable_code" not in left


def test_a_patient_of_two_files_has_one_history_and_no_split(tmp_path):
    other = [["canary81", 0, [[[0], [3]]]], ["p9", 0, [[[0], [3]]]]]
    tables, left = read(tmp_path, {"d.combined.train": [RECORDS], "d.combined.test": [other]})
    assert [row for row in codes(tables) if row[0] == "canary81"] == [("canary81", 1, "ICD9CM/250.00")]
    assert left["further_record"] == Counts(patients=1, visits=3, codes=5)
    assert dict(pl.read_parquet(tmp_path / "ehr" / SPLITS_FILE).rows()) == {"990077": "train", "p9": "test"}


def test_the_labels_can_be_read(tmp_path):
    folder = write(tmp_path / "source", {"d.combined.train": [RECORDS[:1], RECORDS[1:]]})
    assert read_labels(folder / "d.combined.train").rows() == [("canary81", 1), ("990077", 0)]
    with pytest.raises(SourceError, match=r"none.pkl: \[missing_file\]"):
        read_labels(folder / "none.pkl")


def test_which_visit_is_first_must_be_said(tmp_path):
    with pytest.raises(ValueError, match=r"got no --options\.order; give --options\.order newest-first"):
        read(tmp_path, {"d.pkl": [RECORDS]}, order=None)
    assert not (tmp_path / "ehr").exists()


@pytest.mark.parametrize("order", ["newest-first", "oldest-first"])
def test_icd_10_before_icd_9_shows_that_the_order_is_the_other(tmp_path, order):
    turned = 1 if order == "newest-first" else -1
    both = [[f"p{n}", 0, [[[0], [1]], [[9], [2]]][::turned]] for n in range(10)]  # read by `order`: first 2, then 1
    with pytest.raises(ValueError, match="got 10 patients with all of them after and 0 with all before"):
        read(tmp_path, {"d.pkl": [both]}, order=order)
    assert not (tmp_path / "ehr").exists()
    read(tmp_path, {"d.pkl": [both[:9]]}, order=order)  # too few to tell


def changed(place, value):
    record = list(RECORDS[1])
    record[place] = value
    return [RECORDS[0], record]


@pytest.mark.parametrize(
    ("content", "rule", "what"),
    [
        ({"a": 1}, "record_form", "1 pickles that are no list of patients"),
        ([RECORDS[0], 5], "record_form", "1 records of another form"),
        (changed(2, [[[0], [1], [2]]]), "record_form", "1 records of another form"),
        (changed(2, [[[0, 1], [1]]]), "record_form", "1 records of another form"),
        (changed(0, 990077.0), "float_id", "1 patient ids that are floats"),
        (changed(0, " "), "record_form", "1 patient ids that are neither"),
        (changed(1, 2), "label_value", "1 labels other than 0 and 1"),
        (changed(2, [[[0], []]]), "empty_record", "1 records without a code"),
        (changed(2, [[[0], [1.5, True]]]), "not_whole", "2 codes that are neither"),
        (changed(2, [[[0], [99]]]), "unknown_number", "1 codes whose number is in no .types"),
        ([*RECORDS, RECORDS[0]], "repeated_patient", "1 patients that are there more than once"),
        ([["a", 0, [[[0], [1] * 50]] * 50]], "shared_lists", "1 pickles whose lists hold more"),
    ],
)
def test_records_of_another_form_are_refused(tmp_path, content, rule, what):
    with pytest.raises(SourceError) as caught:
        read(tmp_path, {"d.pkl": [content]})
    said = str(caught.value)
    assert f"d.pkl: [{rule}] holds {what}" in said
    assert not any(word in said for word in ("canary", "9900")) and not (tmp_path / "ehr").exists()


def test_numbers_without_types_and_a_program_in_place_of_values_are_refused(tmp_path):
    with pytest.raises(SourceError, match=r"\[unknown_number\] holds 6 codes"):
        read(tmp_path, {"d.pkl": [RECORDS[:1], [["q", 0, [[[0], [1]]]]]]}, types=None)
    with pytest.raises(SourceError, match=r"\[executable_pickle\] holds the instruction .* which was not executed"):
        read(tmp_path, {"d.pkl": [[["p", 0, [[[0], [print]]]]]]})
