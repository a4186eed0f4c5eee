"""Bad pickles of the original project: each fault of a file is refused by file, rule, count and cure, all at once."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medbert_jax.attrition.ledger import Counts
from medbert_jax.ehr.tables import read_tables
from medbert_jax.ingest.ingest import ingest
from medbert_jax.ingest.source_files import SourceError

TYPES = {"empty_pad": 0, "ICD9_428.0": 1, "ICD10_I50": 2, "ICD9_250.00": 3, "ICD10_E11.9": 4}
RECORDS = [
    ["canary81", [3, 8], [10, 0], [1, 3, 1, 2], [1, 1, 2, 2]],
    [990077, [0, 0, 7], [1, 365, 0], [4, 2, 2, 1], [1, 2, 3, 3]],
]
COMBINED = [["canary82", 1, [1, 3, 2], [1, 1, 2]], [990078, 0, [4], [1]]]
SOUND = {"d.types": [TYPES], "d.bencs.train": [RECORDS], "d.combined_BertFT.test": [COMBINED]}
CURES = ("make it again with the released scripts", "copy or export it again", "put it there", "leave one of them",
         "put the .types of the same run", "remove what a second run", "export ids as whole", "export its rows",
         "never unpickle this file")  # fmt: skip


def write(folder: Path, **files) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in (SOUND | files).items():
        if content is not None:
            data = content if isinstance(content, bytes) else b"".join(pickle.dumps(one, -1) for one in content)
            (folder / name).write_bytes(data)
    return folder


def read(tmp_path, **files):
    out = tmp_path / "ehr"
    write(tmp_path / "source", **files)
    ledger = ingest(
        tmp_path / "source", out, format="med-bert-pickles", shards=2, workers=1, announce=lambda line: None
    )
    tables = read_tables(out)
    ledger.check(patients=tables.patients.height, visits=tables.visits.height, codes=tables.diagnoses.height)
    return tables, {line.rule: line.left for line in ledger.lines if line.left != Counts()}


def refusal(tmp_path, **files) -> list[str]:
    """The lines of the message."""
    with pytest.raises(SourceError) as caught:
        read(tmp_path, **files)
    said = str(caught.value)
    assert not any(word in said for word in ("canary", "9900"))
    assert not (tmp_path / "ehr").exists()
    lines = said.splitlines()
    assert all(any(cure in line for cure in CURES) for line in lines[1:]), lines
    return lines


def test_the_sound_files_are_read(tmp_path):
    tables, left = read(tmp_path)
    assert (tables.patients.height, tables.visits.height, tables.diagnoses.height) == (4, 8, 12)
    assert left == {"label_not_taken": Counts(codes=2)}


def changed(place, value):
    record = list(RECORDS[1])
    record[place] = value
    return [RECORDS[0], record]


RECORD_CASES = [
    ("no list", {}, "record_form", "1 pickles that are no list of patients"),
    ("no patients", [], "record_form", "1 pickles that are no list of patients"),
    ("a number for a record", [RECORDS[0], 5], "record_form", "1 records of another form"),
    ("four parts", [RECORDS[0][:4], RECORDS[1][:4]], "record_form", "2 records of another form"),
    ("a dict for codes", changed(3, {1: 1}), "record_form", "1 records of another form"),
    ("patient of no letter", changed(0, " "), "record_form", "1 patient ids that are neither"),
    ("patient with a NUL", changed(0, "a\0b"), "record_form", "1 patient ids that are neither"),
    ("patient of 27 digits", changed(0, 2**90), "record_form", "1 patient ids that are neither"),
    ("patient is a float", changed(0, 990077.0), "float_id", "1 patient ids that are floats"),
    ("patient is a float as text", changed(0, "990077.0"), "float_id", "column patient_id has ids written as floats"),
    ("codes not in the .types", changed(3, [4, 2, 9, 9]), "unknown_number", "2 codes whose number is not in"),
    ("padding for a code", changed(3, [0, 2, 2, 1]), "unknown_number", "1 codes whose number is not in the .types"),
    ("a code beyond 32 bits", changed(3, [2**40, 2, 2, 1]), "unknown_number", "1 codes whose number is not"),
    ("a code is a float", changed(3, [4, 2, 2, 1.0]), "not_whole", "1 records whose codes are not whole numbers"),
    ("a code is text", changed(3, [4, 2, 2, "1"]), "not_whole", "1 records whose codes are not whole numbers"),
    ("a code is a list", changed(3, [4, 2, 2, [1]]), "not_whole", "1 records whose codes are not whole numbers"),
    ("a code of 80 bits", changed(3, [4, 2, 2, 2**80]), "not_whole", "1 records whose codes are not whole numbers"),
    ("a stay is a float", changed(1, [0, 0.5, 7]), "not_whole", "1 records whose length of stay per visit"),
    ("fewer codes than visits", changed(3, [4, 2]), "unequal_lists", "1 records with other numbers of codes"),
    ("a visit left out", changed(4, [1, 3, 3, 3]), "visit_numbers", "1 records whose visits are not 1, 2, 3"),
    ("visits from 2 on", changed(4, [2, 2, 3, 3]), "visit_numbers", "1 records whose visits are not 1, 2, 3"),
    ("visits go back", changed(4, [1, 2, 1, 3]), "visit_numbers", "1 records whose visits are not 1, 2, 3"),
    ("fewer stays than visits", changed(1, [1, 2]), "unequal_lists", "1 records with other numbers of visits than"),
    ("fewer gaps than visits", changed(2, []), "unequal_lists", "1 records with other numbers of visits than of days"),
    ("a gap of 27,000 years", changed(2, [1, 2, 10**7]), "day_range", "1 values of days to the next visit beyond 1,"),
    ("no codes", [["canary", [], [], [], []]], "empty_record", "1 records without a code"),
    ("a second run appended", RECORDS * 2, "repeated_patient", "2 patients that are there more than once"),
    ("7 and '7' are one", [*RECORDS, ["990077", *RECORDS[1][1:]]], "repeated_patient", "1 patients that are there"),
]  # fmt: skip


@pytest.mark.parametrize(("records", "rule", "text"), [pytest.param(*case, id=name) for name, *case in RECORD_CASES])
def test_records_of_another_form_are_refused_and_counted(tmp_path, records, rule, text):
    (_, line) = refusal(tmp_path, **{"d.bencs.train": [records]})
    assert line.startswith(f"  - d.bencs.train: [{rule}] ") and text in line


TYPES_CASES = [
    ("a list", [1], ["1 list instead of a dict"]),
    ("no padding", {"ICD9_428": 1}, ['1 code "empty_pad" of number 0 missing']),
    ("one number for two codes", {"empty_pad": 0, "a": 1, "b": 1, "c": 1}, ["2 codes that share a number"]),
    ("codes that are numbers", {"empty_pad": 0, 7: 1, 0.5: 2}, ["2 codes that are no text"]),
    ("numbers that are none", {"empty_pad": 0, "a": -1, "b": 1.0, "c": 2**40, "d": []},
     ["4 numbers that are no whole numbers from 0 to 2³¹"]),
    ("all of it", {"empty_pad": 1, 3: 1, "b": "x"},
     ["1 codes that are no text", "1 numbers that are no", "1 codes that share", '1 code "empty_pad"']),
]  # fmt: skip


@pytest.mark.parametrize(("types", "texts"), [pytest.param(*case, id=name) for name, *case in TYPES_CASES])
def test_types_of_another_form_are_refused(tmp_path, types, texts):
    lines = refusal(tmp_path, **{"d.types": [types]})[1:]
    assert len(lines) == len(texts) and all(line.startswith("  - d.types: [types_form] holds ") for line in lines)
    assert all(any(text in line for line in lines) for text in texts)


def test_further_pickles_in_the_types_are_refused(tmp_path):
    (_, line) = refusal(tmp_path, **{"d.types": [TYPES, TYPES, TYPES]})
    assert "[types_form] holds 2 further pickles after the first" in line


def test_types_with_padding_alone_hold_no_code(tmp_path):
    said = "\n".join(refusal(tmp_path, **{"d.types": [{"empty_pad": 0}]}))
    assert "d.types: [empty_table] has no rows" in said and "[unknown_number] holds 8 codes" in said


def test_labels_other_than_0_and_1_are_refused(tmp_path):
    wrong = [["a", 2, [1], [1]], ["b", -1, [1], [1]], ["c", 0.0, [1], [1]], ["d", "1", [1], [1]]]
    (_, line) = refusal(tmp_path, **{"d.combined_BertFT.test": [wrong]})
    assert line.startswith("  - d.combined_BertFT.test: [label_value] holds 4 labels other than 0 and 1")


@pytest.mark.parametrize("missing", ["d.types", "histories"])
def test_missing_files(tmp_path, missing):
    names = ["d.types"] if missing == "d.types" else ["d.bencs.train", "d.combined_BertFT.test"]
    (_, line) = refusal(tmp_path, **dict.fromkeys(names))
    wanted = "*.types" if missing == "d.types" else "*.bencs* or *combined_BertFT*"
    assert line.startswith(f"  - {wanted}: [missing_file] is not in source")


def test_two_types_are_refused(tmp_path):
    lines = refusal(tmp_path, **{"e.types": [TYPES]})[1:]
    assert [line.partition(":")[0] for line in lines] == ["  - d.types", "  - e.types"]
    assert all("[two_files] is there beside" in line for line in lines)


def test_faults_of_all_files_and_pickles_are_said_at_once(tmp_path):
    bad = {
        "d.types": [{"a": 1}],
        "d.bencs.train": [[RECORDS[0], 5], RECORDS, [["x", [1], [0], [1], [2]], ["y", [1], [0], [1.5], [1]]]],
        "d.bencs.test": b"",
        "d.combined_BertFT.test": [[["x", 3, [], []]]],
    }
    lines = [line.split(" ")[3:6] for line in refusal(tmp_path, **bad)[1:]]
    assert lines == [
        ["d.bencs.test:", "[unreadable_file]", "is"],
        ["d.bencs.train:", "[not_whole]", "holds"],
        ["d.bencs.train:", "[record_form]", "holds"],
        ["d.combined_BertFT.test:", "[label_value]", "holds"],
        ["d.types:", "[types_form]", "holds"],
    ]


def test_damaged_files(tmp_path):
    whole = pickle.dumps(RECORDS, 4)
    for place, content in enumerate((whole[:-20], b"", b"patient\tcode\n", bytes(range(256)))):
        folder = tmp_path / str(place)
        folder.mkdir()
        lines = refusal(folder, **{"d.bencs.train": content})[1:]
        assert len(lines) == 1 and "d.bencs.train: [unreadable_file]" in lines[0]


def test_no_change_of_a_byte_gives_another_error_than_a_refusal(tmp_path):
    content, generator = pickle.dumps(RECORDS, 4), np.random.default_rng(0)
    for place in range(0, len(content), 3):
        flipped = content[:place] + generator.bytes(1) + content[place + 1 :]
        try:
            read(tmp_path, **{"d.bencs.train": flipped})
        except SourceError as refused:
            assert all(line.startswith("  - d.bencs.train: [") for line in str(refused).splitlines()[1:])


class Touches:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return subprocess.check_output, (["touch", str(self.path)],)


@pytest.mark.parametrize("name", SOUND)
def test_nothing_in_a_hostile_file_is_executed(tmp_path, name):
    touched = tmp_path / "touched"
    for content in (Touches(touched), [*RECORDS, Touches(touched)], {"empty_pad": 0, "a": Touches(touched)}):
        (_, line) = refusal(tmp_path, **{name: [content]})
        assert line.startswith(f"  - {name}: [executable_pickle] holds the instruction STACK_GLOBAL (subprocess.")
        assert "which was not executed" in line and not touched.exists()
    pickle.loads(pickle.dumps(Touches(touched)))
    assert touched.exists()


def test_one_list_under_many_names_is_refused(tmp_path):
    codes = [1] * 1000
    content = pickle.dumps([[f"p{i}", 0, codes, codes] for i in range(1000)])
    (_, line) = refusal(tmp_path, **{"d.combined_BertFT.test": content})
    assert "[shared_lists] holds 1 pickles whose lists hold more numbers than the file has bytes" in line


def test_codes_that_are_none_are_counted_and_leave(tmp_path):
    types = {"empty_pad": 0, "ICD9_428.0": 1, "ICD9_strange": 2, "free text": 3, "ICD10_": 4}
    tables, left = read(tmp_path, **{"d.types": [types]})
    assert left == {
        "label_not_taken": Counts(codes=2),
        "missing_code": Counts(codes=2),
        "unreadable_code": Counts(codes=6),
    }
    assert tables.diagnoses.height == 4


def test_a_patient_in_two_files_is_counted(tmp_path):
    again = [["canary81", 0, [1, 1, 1], [1, 2, 3]]]
    _, left = read(tmp_path, **{"e.combined_BertFT.train": [again], "d.bencs.valid": [RECORDS[1:]]})
    assert left == {"label_not_taken": Counts(codes=3), "further_record": Counts(2, 6, 7)}


def test_workers_and_shards_change_nothing(tmp_path):
    source = write(tmp_path / "source")
    found = []
    for shards, workers in ((1, 1), (5, 2)):
        more = {"format": "med-bert-pickles", "announce": lambda line: None}
        ledger = ingest(source, tmp_path / str(shards), shards=shards, workers=workers, **more)
        found.append((ledger.to_dict(), read_tables(tmp_path / str(shards)).source.content_hash))
    assert found[0] == found[1]


def test_a_refusal_crosses_processes(tmp_path):
    source = write(tmp_path / "source", **{"d.bencs.train": [RECORDS * 2], "d.types": [{"a": 1}]})
    code = "import sys; from medbert_jax.ingest.ingest import ingest\nif __name__ == '__main__':\n"
    code += " ingest(sys.argv[1], sys.argv[2], format='med-bert-pickles', workers=2)"
    done = subprocess.run(
        [sys.executable, "-c", code, str(source), str(tmp_path / "ehr")], capture_output=True, text=True
    )
    assert done.returncode and "[types_form]" in done.stderr and "[repeated_patient] holds 2 patients" in done.stderr
