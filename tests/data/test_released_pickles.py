import builtins
import copyreg
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest

from medbert_jax.data.plain_pickles import plain_values
from medbert_jax.data.released_pickles import code_names, read_bencs, read_combined, read_types
from medbert_jax.data.serialization import count_patients, with_vocabulary
from medbert_jax.data.vocabulary import FIRST_CODE, UNK, fit_vocabulary

TYPES = {"empty_pad": 0, "ICD9_428.0": 1, "ICD10_I50": 2, "ICD9_250.00": 3, "strange": 4}
# patient, stays, days to the next, codes, visits
RECORDS = [
    ["p1", [3, 8], [10, 0], [1, 3, 1, 2], [1, 1, 2, 2]],
    [77, [0, 0, 7], [1, 365, 0], [4, 2, 2, 1], [1, 2, 3, 3]],
]
PROTOCOLS = range(6)


def written(tmp_path, *values, protocol=-1, name="data.bencs.train"):
    path = tmp_path / name
    path.write_bytes(b"".join(pickle.dumps(value, protocol) for value in values))
    return path


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_of_every_protocol_come_back(tmp_path, protocol):
    numbers = [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**70, -(2**2100), 0.5, True, False]
    value = [numbers, {"a": [], "ä\n'": {}, 3: "x" * 300}, list(range(3000)), [[5]], [numbers, numbers]]
    path = written(tmp_path, value, [7], protocol=protocol)
    back, second = plain_values(path)
    assert back == value and second == [7]
    assert [type(number) for number in back[0]] == [type(number) for number in numbers]


def test_python_2_text_is_read(tmp_path):
    path = tmp_path / "old.types"
    path.write_bytes(b"\x80\x02}(U\tempty_padK\x00U\nICD9_428.0K\x01u.")
    assert read_types(path) == {"empty_pad": 0, "ICD9_428.0": 1}


def test_bencs(tmp_path):
    path = written(tmp_path, RECORDS[:1], RECORDS[1:])
    sequences, names = read_bencs(path, TYPES), code_names(TYPES)
    assert names.tolist() == ["ICD10CM/I50", "ICD9CM/250.00", "ICD9CM/428.0", "strange"]
    assert sequences.patient_id.tolist() == [b"p1", b"77"]
    assert names[sequences.code_ids[:4]].tolist() == ["ICD9CM/428.0", "ICD9CM/250.00", "ICD9CM/428.0", "ICD10CM/I50"]
    assert sequences.visit_ids.tolist() == [1, 1, 2, 2, 1, 2, 3, 3]
    assert sequences.serialization_ids.tolist() == [0, 1, 0, 1, 0, 0, 0, 1]
    assert sequences.code_offsets.tolist() == [0, 4, 8] and sequences.visit_offsets.tolist() == [0, 2, 5]
    assert sequences.visit_days.tolist() == [0, 13, 0, 1, 366]
    assert sequences.length_of_stay.tolist() == [3, 8, 0, 0, 7]
    assert sequences.outcomes["prolonged_los"].tolist() == [1, 0]  # 8 days are, 7 are not
    assert (sequences.age_days == -1).all() and not sequences.sex.any()


def test_a_vocabulary_takes_the_codes_over(tmp_path):
    sequences, names = read_bencs(written(tmp_path, RECORDS), TYPES), code_names(TYPES)
    vocabulary = fit_vocabulary([count_patients(sequences, names)], minimum_patients=2)
    assert vocabulary.codes == ("ICD10CM/I50", "ICD9CM/428.0")
    ids = with_vocabulary(sequences, names, vocabulary).code_ids.tolist()
    hf, icd9 = FIRST_CODE, FIRST_CODE + 1
    assert ids == [icd9, UNK, icd9, hf, UNK, hf, hf, icd9]


def test_days_before_the_first_visit_and_negative_stays_are_unknown(tmp_path):
    record = ["p", [5, -2, 1], [-9, 0, 0], [1, 2, 3], [1, 2, 3]]
    sequences = read_bencs(written(tmp_path, [record]), TYPES)
    assert sequences.visit_days.tolist() == [0, -1, -1] and sequences.length_of_stay.tolist() == [5, -1, 1]


def test_a_code_is_kept_once_in_a_visit(tmp_path):
    sequences = read_bencs(written(tmp_path, [["p", [1, 1], [3, 0], [3, 1, 3, 3], [1, 1, 1, 2]]]), TYPES)
    assert sequences.code_ids.tolist() == [1, 2, 1] and sequences.serialization_ids.tolist() == [0, 1, 0]


def test_combined(tmp_path):
    path = written(tmp_path, [["p1", 1, [1, 3, 2], [1, 1, 2]], ["p2", 0, [4], [1]]], name="a.combined_BertFT.train")
    sequences = read_combined(path, TYPES)
    assert sequences.outcomes["label"].tolist() == [1, 0] and list(sequences.outcomes) == ["label"]
    assert sequences.visit_days.tolist() == sequences.length_of_stay.tolist() == [-1, -1, -1]
    assert sequences.visit_ids.tolist() == [1, 1, 2, 1]


def changed(place, value):
    record = list(RECORDS[1])
    record[place] = value
    return [RECORDS[0], record]


@pytest.mark.parametrize(
    ("records", "text"),
    [
        ({}, "1 pickles that are no list of patients"),
        ([RECORDS[0], 5], "1 records of another form"),
        ([RECORDS[0][:4]], "1 records of another form"),
        (changed(0, ""), "1 records of another form"),
        (changed(0, 2**90), "1 records of another form"),
        (changed(0, 1.5), "1 records of another form"),
        (changed(3, [4, 2, 2, 9]), "1 codes whose number is not in the .types"),
        (changed(3, [0, 2, 2, 1]), "1 codes whose number is not in the .types"),
        (changed(3, [4, 2, 2, 1.0]), "1 records whose codes are not whole numbers"),
        (changed(3, [4, 2, 2, "1"]), "1 records whose codes are not whole numbers"),
        (changed(3, [4, 2, 2, [1]]), "1 records whose codes are not whole numbers"),
        (changed(3, [4, 2, 2, 2**80]), "1 records whose codes are not whole numbers"),
        (changed(3, [4, 2]), "1 records with other numbers of codes than of visits"),
        (changed(4, [1, 3, 3, 3]), "1 records whose visits are not 1, 2, 3 … in order"),
        (changed(4, [2, 2, 3, 3]), "1 records whose visits are not 1, 2, 3 … in order"),
        (changed(4, [1, 2, 1, 3]), "1 records whose visits are not 1, 2, 3 … in order"),
        (changed(1, [1, 2]), "1 records with other numbers of visits than of length of stay per visit"),
        (changed(2, [1, 2, 10**7]), "1 values of days to the next visit beyond 1,000,000 days"),
        ([["p", [], [], [], []]], "1 records without a code"),
        (RECORDS * 2, "2 patients that are there more than once"),
    ],
)
def test_records_of_another_form_are_refused_and_counted(tmp_path, records, text):
    with pytest.raises(ValueError, match=r"data.bencs.train must hold lists of \[patient_id") as caught:
        read_bencs(written(tmp_path, records), TYPES)
    assert f"got {text}" in str(caught.value) and "p1" not in str(caught.value)


def test_labels_other_than_0_and_1_are_refused(tmp_path):
    with pytest.raises(ValueError, match="2 labels other than 0 and 1"):
        read_combined(written(tmp_path, [["p", 2, [1], [1]], ["q", -1, [1], [1]]]), TYPES)


@pytest.mark.parametrize(
    ("types", "text"),
    [
        ([1], "a list instead of a dict"),
        ({"a": 1}, 'no "empty_pad" of number 0'),
        ({"empty_pad": 0, "a": 1, "b": 1}, "1 codes that share a number"),
        ({"empty_pad": 0, 7: 1, 0.5: 2}, "2 codes that are no text"),
        ({"empty_pad": 0, "a": -1, "b": 1.0, "c": 2**40}, "3 numbers that are no whole numbers"),
    ],
)
def test_types_of_another_form_are_refused(tmp_path, types, text):
    with pytest.raises(ValueError, match=text):
        read_types(written(tmp_path, types, name="data.types"))


class Calls:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def hostile(canary):
    command = f"touch {canary}"
    return {
        "os.system": Calls(os.system, command),
        "builtins.eval": Calls(builtins.eval, f"open({str(canary)!r}, 'w')"),
        "builtins.exec": Calls(builtins.exec, f"open({str(canary)!r}, 'w')"),
        "builtins.open": Calls(open, str(canary), "w"),
        "subprocess": Calls(subprocess.check_output, ["touch", str(canary)]),
        "getattr": Calls(builtins.getattr, "x", "join"),
        "copyreg": Calls(copyreg._reconstructor, dict, object, None),
        "nested": [RECORDS[0], {"a": [1, [Calls(os.system, command)]]}],
        "key": {Calls(os.system, command): 1},
        "set": [{1, 2}],
        "bytes": [b"x"],
        "none": [None],
        "tuple": [(1, 2)],
        "complex": [1j],
        "numpy": [np.int64(3)],
        "array": np.arange(3),
        "function": [len],
        "class": [OSError],
    }


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_in_a_hostile_file_is_executed(tmp_path, protocol):
    canary = tmp_path / "canary"
    for name, value in hostile(canary).items():
        path = written(tmp_path, RECORDS, value, protocol=protocol, name="hostile")
        for read in (read_types, lambda path: read_bencs(path, TYPES), lambda path: read_combined(path, TYPES)):
            with pytest.raises(ValueError, match="hostile must hold") as caught:
                read(path)
            # After the refusal of the first pickle, the reader of another kind never comes to the second.
            assert "executed" in str(caught.value) or read is not read_types, name
            assert not canary.exists(), name
    # The same file does execute where it is unpickled: the canary can sing.
    pickle.loads(pickle.dumps(hostile(canary)["os.system"], protocol))
    assert canary.exists()


def test_what_was_refused_is_named(tmp_path):
    for protocol, name in ((0, "GLOBAL"), (2, "GLOBAL"), (4, "STACK_GLOBAL")):
        path = written(tmp_path, Calls(os.system, "true"), protocol=protocol)
        with pytest.raises(ValueError, match=rf"the instruction {name} \({os.system.__module__}\.system\) in pickle 1"):
            read_types(path)


BOMBS = {
    "INST": b"(S'true'\nios\nsystem\n.",
    "OBJ": b"(]o.",
    "REDUCE": b"]]R.",
    "BUILD": b"]}b.",
    "NEWOBJ": b"\x80\x02]]\x81.",
    "NEWOBJ_EX": b"\x80\x04]]]\x92.",
    "PERSID": b"Pid\n.",
    "BINPERSID": b"K\x01Q.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "BYTEARRAY8": b"\x80\x05\x96" + struct.pack("<Q", 1) + b"x.",
    "EMPTY_SET": b"\x80\x04\x8f.",
    "DUP": b"]2.",
    "POP": b"]]0.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_other_instructions_are_refused_by_name(tmp_path, name):
    path = tmp_path / "bomb"
    path.write_bytes(BOMBS[name])
    with pytest.raises(ValueError, match=rf"the instruction {name}\b.* in pickle 1, which was not executed"):
        read_types(path)


@pytest.mark.parametrize(
    "content",
    [
        b"\x8d" + struct.pack("<Q", 2**60) + b"x.",  # a text of an exabyte
        b"\x8b" + struct.pack("<I", 2**31) + b"x.",
        b"\x80\x04\x95" + struct.pack("<Q", 2**60) + b".",
        b"X" + struct.pack("<I", 2**31) + b"x.",
    ],
)
def test_sizes_beyond_the_file_are_not_allocated(tmp_path, content):
    path = tmp_path / "large"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="ends within pickle 1; copy it again"):
        read_types(path)


def test_a_place_of_memory_far_away_costs_nothing(tmp_path):
    path = tmp_path / "sparse"
    path.write_bytes(b"]r" + struct.pack("<I", 2**32 - 1) + b".")
    assert list(plain_values(path)) == [[]]


def test_one_list_under_many_names_is_refused(tmp_path):
    codes = [1] * 1000
    path = written(tmp_path, [[f"p{i}", 0, codes, codes] for i in range(1000)])
    with pytest.raises(ValueError, match="more numbers than the file has bytes"):
        read_combined(path, TYPES)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_noticed(tmp_path, protocol):
    content = pickle.dumps(RECORDS, protocol)
    path = tmp_path / "cut"
    for end in range(1, len(content)):
        path.write_bytes(content[:end])
        with pytest.raises(ValueError, match=r"cut must hold pickled .* (ends within|no such pickle)"):
            list(plain_values(path))


def test_no_change_of_a_byte_gives_another_error_than_a_refusal(tmp_path):
    content, generator = pickle.dumps(RECORDS, 4), np.random.default_rng(0)
    path = tmp_path / "flipped"
    for place in range(len(content)):
        path.write_bytes(content[:place] + generator.bytes(1) + content[place + 1 :])
        try:
            list(plain_values(path)) if place % 3 else read_bencs(path, TYPES)
        except ValueError as error:
            assert str(error).startswith("flipped must hold")


def test_empty_and_absent_files(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    with pytest.raises(ValueError, match=r"empty must hold pickled .* got an empty file"):
        read_types(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="got no such file"):
        read_bencs(tmp_path / "absent", TYPES)
