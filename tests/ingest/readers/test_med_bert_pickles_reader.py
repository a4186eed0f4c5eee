"""Pickles laid out as the released scripts write them → EHR tables and the sequences that serialization gives back."""

import pickle

import numpy as np
import polars as pl
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.data.serialization import SerializationConfig, order_histories, serialize
from medbert_jax.data.vocabulary import FIRST_CODE, UNK, Vocabulary
from medbert_jax.ehr.shard_files import SPLITS_FILE
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.readers.med_bert_pickles import read_labels
from medbert_jax.ingest.readers.med_bert_tsv import MedBertOptions
from medbert_jax.ingest.source_files import SourceError

TYPES = {"empty_pad": 0, "ICD9_428.0": 1, "ICD10_I50": 2, "ICD9_250.00": 3, "ICD10GM_E11.90": 4}
# patient, stays, days to the next, codes, visits
RECORDS = [
    ["p1", [3, 8], [10, 0], [1, 3, 1, 2], [1, 1, 2, 2]],
    [77, [0, -2, 7], [1, 365, 0], [4, 2, 2, 1], [1, 2, 3, 3]],
]
COMBINED = [["p3", 1, [1, 3, 3, 2], [1, 1, 1, 2]], ["p4", 0, [4], [1]]]


def read(tmp_path, files, **more):
    source = tmp_path / "source"
    source.mkdir(exist_ok=True)
    for name, pickles in ({"data.types": [TYPES]} | files).items():
        (source / name).write_bytes(b"".join(pickle.dumps(value, -1) for value in pickles))
    quiet = {"workers": 1, "announce": lambda line: None}
    ledger = ingest(source, tmp_path / "ehr", format="med-bert-pickles", **quiet, **more)
    return read_tables(tmp_path / "ehr"), {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def splits(tmp_path) -> dict[str, str]:
    return dict(pl.read_parquet(tmp_path / "ehr" / SPLITS_FILE).rows())


@pytest.mark.parametrize("shards", [1, 3])
def test_bencs(tmp_path, shards):
    tables, left = read(tmp_path, {"data.bencs.train": [RECORDS[:1], RECORDS[1:]]}, shards=shards)
    assert left == {} and not tables.source.has_dates and tables.source.age_precision == "unknown"
    visits = tables.visits.sort("patient_id", "order")
    assert visits.select("patient_id", "order", "length_of_stay").rows() == [
        ("77", 1, 0), ("77", 2, None), ("77", 3, 7), ("p1", 1, 3), ("p1", 2, 8),
    ]  # fmt: skip
    for column in ("admit_time", "discharge_time", "visit_type", "age_days"):
        assert visits[column].null_count() == 5
    codes = tables.diagnoses.sort("patient_id", "visit_id", "priority")
    assert codes.select("visit_id", "code_system", "code", "priority").rows() == [
        ("77-1", "ICD10GM", "E11.90", 1), ("77-2", "ICD10CM", "I50", 1),
        ("77-3", "ICD10CM", "I50", 1), ("77-3", "ICD9CM", "428.0", 2),
        ("p1-1", "ICD9CM", "428.0", 1), ("p1-1", "ICD9CM", "250.00", 2),
        ("p1-2", "ICD9CM", "428.0", 1), ("p1-2", "ICD10CM", "I50", 2),
    ]  # fmt: skip
    assert splits(tmp_path) == {"p1": "train", "77": "train"}


def test_serialization_gives_the_sequences_of_the_files_back(tmp_path):
    tables, _ = read(tmp_path, {"data.bencs.train": [RECORDS], "data.combined_BertFT.test": [COMBINED]})
    sequences, names, _ = order_histories(tables, SerializationConfig(minimum_codes=1))
    assert sequences.patient_id.tolist() == [b"77", b"p1", b"p3", b"p4"]
    published = {"ICD9CM/428.0": 1, "ICD10CM/I50": 2, "ICD9CM/250.00": 3, "ICD10GM/E11.90": 4}
    assert [published[names[code]] for code in sequences.code_ids] == [4, 2, 2, 1, 1, 3, 1, 2, 1, 3, 2, 4]
    assert sequences.visit_ids.tolist() == [1, 2, 3, 3, 1, 1, 2, 2, 1, 1, 2, 1]
    assert sequences.serialization_ids.tolist() == [0, 0, 0, 1, 0, 1, 0, 1, 0, 1, 0, 0]
    assert sequences.length_of_stay.tolist() == [0, -1, 7, 3, 8, -1, -1, -1]
    assert sequences.outcomes["prolonged_los"].tolist() == [0, 1, 0, 0]  # 8 days are, 7 and unknown ones are not
    assert (sequences.visit_days == -1).all() and (sequences.age_days == -1).all() and not sequences.sex.any()
    # Planted: the names' own order is not the file's.
    flat = tables.diagnoses.with_columns(priority=pl.lit(1, pl.Int32))
    flat = type(tables)(**vars(tables) | {"diagnoses": flat})
    other, _, _ = order_histories(flat, SerializationConfig(minimum_codes=1))
    assert len(other) == len(sequences) and not np.array_equal(other.code_ids, sequences.code_ids)


def test_a_vocabulary_takes_the_codes_over(tmp_path):
    tables, _ = read(tmp_path, {"data.bencs.train": [RECORDS]})
    vocabulary = Vocabulary(("ICD10CM/I50", "ICD9CM/428.0"), np.array([2, 2]), ("", ""))
    hf, icd9 = FIRST_CODE, FIRST_CODE + 1
    sequences, _ = serialize(tables, vocabulary, SerializationConfig(minimum_codes=1))
    assert sequences.code_ids.tolist() == [UNK, hf, hf, icd9, icd9, UNK, icd9, hf]


def test_the_splits_of_the_files_are_kept(tmp_path):
    one = {name: [[[name, [1], [0], [1], [1]]]] for name in ("a.bencs.train", "a.bencs.valid", "a.bencs.test")}
    other = [["alone", [1], [0], [1], [1]]]
    read(tmp_path, one | {"rest.bencs": [other]})
    assert splits(tmp_path) == {"a.bencs.train": "train", "a.bencs.valid": "validation", "a.bencs.test": "test"}


def test_a_patient_of_several_files_has_the_history_of_bencs_and_no_second_split(tmp_path):
    cut = [["p1", 1, [3], [1]], ["p5", 0, [2], [1]]]
    again = [["p9", [1], [0], [1], [1]]]
    files = {"d.bencs.train": [RECORDS, again], "d.bencs.test": [again], "d.combined_BertFT.test": [cut]}
    tables, left = read(tmp_path, files)
    assert left == {"further_record": Counts(2, 2, 2), "label_not_taken": Counts(codes=2)}
    assert splits(tmp_path) == {"p1": "train", "77": "train", "p5": "test"}  # p9 is in training and test
    assert tables.diagnoses.filter(patient_id="p1").height == 4
    assert tables.patients.height == 4


def test_codes_of_one_visit_that_are_alike_stay_until_serialization(tmp_path):
    tables, left = read(tmp_path, {"a.bencs.train": [[["p", [1, 1], [3, 0], [3, 1, 3, 3], [1, 1, 1, 2]]]]})
    assert left == {} and tables.diagnoses.height == 4
    sequences, names, ledger = order_histories(tables, SerializationConfig(minimum_codes=1))
    assert names[sequences.code_ids].tolist() == ["ICD9CM/250.00", "ICD9CM/428.0", "ICD9CM/250.00"]
    assert {line.rule: line.left.codes for line in ledger.lines}["repeated_in_visit"] == 1


BARE = {"empty_pad": 0, "428.0": 1, "I50.9": 2, "V27.0": 3, "?": 4, "ICD_E11.9": 5, "ICD10GM_V27": 6}


@pytest.mark.parametrize(
    ("us_icd", "kept", "rules"),
    [
        (False, {("ICD", "E11.9"), ("ICD10GM", "V27")}, {"unreadable_code": Counts(codes=4)}),
        (True, {("ICD9CM", "428.0"), ("ICD10CM", "I50.9"), ("ICD10CM", "E11.9"), ("ICD10GM", "V27")},
         {"undecided_version": Counts(codes=1), "unreadable_code": Counts(codes=1)}),
    ],
)  # fmt: skip
def test_codes_without_a_version(tmp_path, us_icd, kept, rules):
    record = ["p", [1], [0], [1, 2, 3, 4, 5, 6], [1] * 6]
    files = {"data.types": [BARE], "a.bencs.train": [[record]]}
    tables, left = read(tmp_path, files, options=MedBertOptions(us_icd=us_icd))
    assert set(tables.diagnoses.select("code_system", "code").rows()) == kept and left == rules
    assert any("of a US site" in line for line in tables.source.assumptions) == us_icd


def test_labels_are_counted_and_can_be_read(tmp_path):
    _, left = read(tmp_path, {"dhf.combined_BertFT.train": [COMBINED[:1], COMBINED[1:]]})
    assert left == {"label_not_taken": Counts(codes=2)}
    path = tmp_path / "source" / "dhf.combined_BertFT.train"
    assert read_labels(path).rows() == [("p3", 1), ("p4", 0)]
    path.write_bytes(pickle.dumps([["p3", 2, [1], [1]], ["p4", -1, [1], [1]]]))
    with pytest.raises(SourceError, match=r"\.train: \[label_value\] holds 2 labels other than 0 and 1; make it again"):
        read_labels(path)
    with pytest.raises(SourceError, match=r"absent: \[missing_file\]"):
        read_labels(tmp_path / "absent")
