import builtins
import copyreg
import os
import pickle
import struct
import subprocess

import numpy as np
import pytest

from medbert_jax.ingest.readers.plain_pickles import plain_values
from medbert_jax.ingest.source_files import FileFault

RECORDS = [
    ["p1", [3, 8], [10, 0], [1, 3, 1, 2], [1, 1, 2, 2]],
    [77, [0, 0, 7], [1, 365, 0], [4, 2, 2, 1], [1, 2, 3, 3]],
]
PROTOCOLS = range(6)


def read(path) -> list:
    return list(plain_values(path, path.name))


def written(tmp_path, *values, protocol=-1):
    path = tmp_path / "file"
    path.write_bytes(b"".join(pickle.dumps(value, protocol) for value in values))
    return path


def refused(path) -> tuple[str, str]:
    """Rule and text of the fault."""
    with pytest.raises(FileFault) as caught:
        read(path)
    file, rule, what = caught.value.fault
    assert file == path.name and caught.value.faults == [caught.value.fault]
    return rule, what


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_of_every_protocol_come_back(tmp_path, protocol):
    numbers = [0, 1, 255, 256, 65535, 65536, -1, 2**31, -(2**31), 2**70, -(2**2100), 0.5, True, False]
    value = [numbers, {"a": [], "ä\n'": {}, 3: "x" * 300}, list(range(3000)), [[5]], [numbers, numbers]]
    back, second = read(written(tmp_path, value, [7], protocol=protocol))
    assert back == value and second == [7]
    assert [type(number) for number in back[0]] == [type(number) for number in numbers]


def test_python_2_text_is_read(tmp_path):
    path = tmp_path / "old"
    path.write_bytes(b"\x80\x02}(U\tempty_padK\x00U\nICD9_428.0K\x01u.")
    assert read(path) == [{"empty_pad": 0, "ICD9_428.0": 1}]


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
        rule, what = refused(written(tmp_path, RECORDS, value, protocol=protocol))
        assert rule == "executable_pickle" and "in pickle 2, which was not executed" in what, name
        assert not canary.exists(), name
    # The same file does execute where it is unpickled: the canary can sing.
    pickle.loads(pickle.dumps(hostile(canary)["os.system"], protocol))
    assert canary.exists()


def test_what_was_refused_is_named(tmp_path):
    for protocol, name in ((0, "GLOBAL"), (2, "GLOBAL"), (4, "STACK_GLOBAL")):
        rule, what = refused(written(tmp_path, Calls(os.system, "true"), protocol=protocol))
        assert rule == "executable_pickle"
        assert f"the instruction {name} ({os.system.__module__}.system) in pickle 1" in what


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
    rule, what = refused(path)
    assert rule == "executable_pickle" and what.startswith(f"holds the instruction {name} ")


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
    assert refused(path) == ("unreadable_file", "ends within pickle 1")


def test_a_place_of_memory_far_away_costs_nothing(tmp_path):
    path = tmp_path / "sparse"
    path.write_bytes(b"]r" + struct.pack("<I", 2**32 - 1) + b".")
    assert read(path) == [[]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_truncation_is_noticed(tmp_path, protocol):
    content = pickle.dumps(RECORDS, protocol)
    path = tmp_path / "cut"
    for end in range(len(content)):
        path.write_bytes(content[:end])
        rule, what = refused(path)
        assert rule == "unreadable_file" and what.startswith(
            ("is empty", "ends within", "has bytes that are no pickle")
        )
