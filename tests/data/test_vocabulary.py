"""The vocabulary: its order, its table on disk, and what it refuses."""

import re
import subprocess
import sys

import numpy as np
import pytest

from medbert_jax.data.vocabulary import (
    FIRST_CODE,
    MASK,
    PAD,
    RESERVED,
    UNK,
    Vocabulary,
    check_unknown,
    fit_vocabulary,
    with_titles,
)


def shard(**patients_per_code):
    return np.array(list(patients_per_code)), np.array(list(patients_per_code.values()))


@pytest.fixture
def vocabulary():
    return fit_vocabulary([shard(b=2, a=2, c=1), shard(a=1, d=3, e=1)], minimum_patients=2)


def test_codes_are_ordered_by_patients_then_by_code_over_all_shards(vocabulary):
    assert vocabulary.codes == ("a", "d", "b")
    assert vocabulary.patients.tolist() == [3, 3, 2]
    assert vocabulary.size == FIRST_CODE + 3
    assert vocabulary.titles == ("", "", "")


def test_encoding_and_its_inverse(vocabulary):
    assert vocabulary.encode([["d", "never seen"], ["a", "b"]]).tolist() == [[17, UNK], [16, 18]]
    assert vocabulary.encode(["a"]).dtype == np.int32
    assert vocabulary.encode([]).tolist() == []
    assert [vocabulary.code(i) for i in range(vocabulary.size)] == [*RESERVED, "a", "d", "b"]
    assert (vocabulary.code(PAD), vocabulary.code(MASK)) == ("<PAD>", "<MASK>")
    assert Vocabulary((), np.zeros(0, np.int64), ()).encode(["a"]).tolist() == [UNK]


def test_reserved_names_are_no_codes(vocabulary):
    assert vocabulary.encode(["<MASK>"]).tolist() == [UNK]


@pytest.mark.parametrize("code_id", [-1, 19])
def test_ids_outside_the_table_are_refused(vocabulary, code_id):
    with pytest.raises(IndexError, match=r"code ids must be in 0…18: got"):
        vocabulary.code(code_id)


def test_the_table_comes_back_and_line_numbers_are_ids(vocabulary, tmp_path):
    titled = Vocabulary(vocabulary.codes, vocabulary.patients, ("Äpfel", "", "b, with words"))
    titled.write(tmp_path / "vocabulary.tsv")
    lines = (tmp_path / "vocabulary.tsv").read_text(encoding="utf-8").splitlines()
    assert lines[0] == "code\tpatients\ttitle"
    assert lines[1 + titled.encode(["d"])[0]].startswith("d\t3\t")
    back = Vocabulary.read(tmp_path / "vocabulary.tsv")
    assert back == titled and back.titles == titled.titles
    assert (back.title(16), back.title(17), back.title(1)) == ("Äpfel", "d", "<MASK>")
    assert [path.name for path in tmp_path.iterdir()] == ["vocabulary.tsv"]


def test_the_hash_is_of_codes_order_and_counts_but_not_of_titles(vocabulary):
    codes, patients, titles = vocabulary.codes, vocabulary.patients, vocabulary.titles
    assert Vocabulary(codes, patients, ("x", "y", "z")).hash == vocabulary.hash
    assert Vocabulary(codes[::-1], patients, titles) != vocabulary
    assert Vocabulary(codes, patients + 1, titles) != vocabulary
    assert Vocabulary(codes[:2], patients[:2], titles[:2]) != vocabulary
    # Stable for ever: checkpoints carry it.
    assert vocabulary.hash == "a01c9d9d85eb203739f3bf2b46d8eb04b3b934d46a1ecf2d50aa1a25b39a93f2"


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (lambda text: text.replace("patients", "count", 1), "another header line"),
        (lambda text: text.replace("\t3\t", "\tthree\t"), "2 of 19 lines that are not code, count, title"),
        (lambda text: text.replace("<UNK>", "<OTHER>"), "other names than <PAD>"),
        (lambda text: text.replace("\nd\t", "\na\t"), "1 repeated codes"),
        (lambda text: text[:40], "other names than <PAD>"),
        (lambda text: "", "another header line"),
    ],
)
def test_a_damaged_table_is_refused_with_its_faults(vocabulary, tmp_path, damage, fault):
    path = tmp_path / "vocabulary.tsv"
    vocabulary.write(path)
    path.write_text(damage(path.read_text()))
    with pytest.raises(ValueError, match=fault):
        Vocabulary.read(path)


def test_all_faults_of_a_vocabulary_are_listed():
    with pytest.raises(ValueError, match=r"2 counts.*1 repeated codes.*1 codes that are names.*1 titles"):
        Vocabulary(("a", "a", "<PAD>"), np.array([1, 2]), ("", "two\tcells", ""))


def test_a_minimum_below_one_is_refused():
    with pytest.raises(ValueError, match="minimum_patients must be at least 1: got 0"):
        fit_vocabulary([], minimum_patients=0)


def test_titles_are_added_where_there_are_none_and_ids_and_hash_stay(tmp_path):
    codes = ("ICD9CM/428", "ICD10GM/E11.9", "ICD9CM/250.6", "SNOMED/44054006", "ICD9CM/250.9")
    plain = Vocabulary(codes, np.arange(5), ("", "", "the source's own", "Diabetes", ""))
    titled = with_titles(plain)
    own = ("Heart failure", "", "the source's own", "Diabetes", "Diabetes with unspecified complication")
    assert titled.titles == own and plain.titles[0] == ""
    assert titled == plain and titled.encode(codes).tolist() == [16, 17, 18, 19, 20]
    assert (titled.title(16), titled.title(17)) == ("Heart failure", "ICD10GM/E11.9")
    titled.write(tmp_path / "vocabulary.tsv")
    assert with_titles(Vocabulary.read(tmp_path / "vocabulary.tsv")).titles == own


def test_a_reused_vocabulary_must_know_most_codes():
    assert check_unknown({"train": 0.2, "test": 0.0312}) == "train 20.0%, test 3.1%"
    assert check_unknown({}) == ""
    with pytest.raises(ValueError, match=re.escape("at most 20% of the codes may")) as caught:
        check_unknown({"train": 0.1, "validation": 0.201, "test": 0.5})
    assert "got train 10.0%, validation 20.1%, test 50.0%; pretrain on this source" in str(caught.value)
    assert check_unknown({"test": 0.5}, limit=0.5) == "test 50.0%"
    with pytest.raises(ValueError, match=r"at most 50% .* got test nan%"):
        check_unknown({"test": float("nan")}, limit=0.5)


def test_vocabulary_and_sequences_import_nothing_heavy():
    script = (
        "import sys, medbert_jax.data.vocabulary, medbert_jax.data.sequences, medbert_jax.data.token_store\n"
        "heavy = {'polars', 'tensorflow_datasets', 'sklearn', 'jax', 'array_record'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", script], check=True)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\x00", bytes(range(256)) * 3, "code\tpatients\ttitle\né".encode("latin-1")]
)
def test_a_file_that_is_no_text_is_named_with_its_cure(tmp_path, content):
    path = tmp_path / "vocabulary.tsv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=rf"in UTF-8: got {path}, which is not text; take vocabulary\.tsv from the"):
        Vocabulary.read(path)


def test_a_count_that_no_column_holds_is_told(tmp_path):
    path = tmp_path / "vocabulary.tsv"
    Vocabulary(("ICD10CM/E11.9",), np.array([3]), ("",)).write(path)
    path.write_text(path.read_text().replace("\t3\t", f"\t{'3' * 30}\t"))
    with pytest.raises(ValueError, match=r"got 1 of 17 lines that are not code, count, title"):
        Vocabulary.read(path)
