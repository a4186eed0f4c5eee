"""Records: equal to what protobuf writes and reads, for any order of features, and damage is seen."""

import random

import numpy as np
import pytest
from made_sequences import made_sequences
from tensorflow_datasets.proto import tf_example_pb2

from medbert_jax.data.example_records import OUTCOMES, decode_records, encode_records
from medbert_jax.data.sequences import PatientSequences


@pytest.fixture
def sequences():
    """Varints of every length, ids of every length, and a patient without anything."""
    made = made_sequences(40, seed=1, longest=90)
    columns = {name: getattr(made, name) for name in made.__dataclass_fields__}
    rng = np.random.default_rng(2)
    size = 2 ** rng.integers(0, 31, len(made.code_ids)).astype(np.int64)
    columns["code_ids"] = (size - 1 + (size < 2**30)).astype(np.int32)
    columns["visit_days"] = np.where(rng.random(len(made.visit_days)) < 0.5, -1, 2**31 - 1).astype(np.int32)
    columns["code_offsets"] = np.append(made.code_offsets, made.code_offsets[-1])
    columns["visit_offsets"] = np.append(made.visit_offsets, made.visit_offsets[-1])
    columns["patient_id"] = np.append(made.patient_id, "Åsa — a very long id, " + 12 * "x").astype("U")
    columns["patient_id"] = np.char.encode(columns["patient_id"], "utf-8")
    columns |= {name: np.append(columns[name], 1).astype(np.int32) for name in ("sex", "race")}
    n = len(columns["sex"])
    outcomes = {name: rng.integers(-1, 2, n).astype(dtype) for name, dtype in OUTCOMES["cohort"].items()}
    outcomes["prediction_time"] = rng.integers(-(2**62), 2**62, n)
    return PatientSequences(**columns | {"outcomes": outcomes})


def assert_same(one, other):
    for name in set(one.__dataclass_fields__) - {"outcomes"}:
        assert np.array_equal(getattr(one, name), getattr(other, name)), name
        assert getattr(one, name).dtype.kind == getattr(other, name).dtype.kind
    assert one.outcomes.keys() == other.outcomes.keys()
    for name, values in one.outcomes.items():
        assert np.array_equal(values, other.outcomes[name]) and values.dtype == other.outcomes[name].dtype


def test_records_come_back_and_the_comparison_sees_a_fault(sequences):
    back = decode_records(encode_records(sequences), OUTCOMES["cohort"])
    assert_same(back, sequences)
    back.visit_days[5] ^= 1
    with pytest.raises(AssertionError):
        assert_same(back, sequences)


def test_records_are_the_bytes_that_protobuf_writes(sequences):
    for i, record in enumerate(encode_records(sequences)):
        example = tf_example_pb2.Example.FromString(record)
        assert example.SerializeToString(deterministic=True) == record
        codes = sequences.code_ids[slice(*sequences.code_offsets[i : i + 2])]
        assert list(example.features.feature["code_ids"].int64_list.value) == codes.tolist()
        assert example.features.feature["patient_id"].bytes_list.value[0] == sequences.patient_id[i]


def test_features_may_come_in_any_order(sequences):
    shuffled = []
    for record in encode_records(sequences):
        features = list(tf_example_pb2.Example.FromString(record).features.feature.items())
        random.Random(len(record)).shuffle(features)
        # The bytes of single entries, one after the other, are the bytes of the map.
        entries = [tf_example_pb2.Example() for _ in features]
        for entry, (name, feature) in zip(entries, features, strict=True):
            entry.features.feature[name].CopyFrom(feature)
        content = b"".join(entry.features.SerializeToString() for entry in entries)
        size = len(content)
        varint = bytes([size]) if size < 128 else bytes([size & 127 | 128, size >> 7])
        shuffled.append(b"\n" + varint + content)
    assert shuffled != encode_records(sequences)
    assert_same(decode_records(shuffled, OUTCOMES["cohort"]), sequences)


def test_nobody_is_no_records(sequences):
    nobody = sequences.take([])
    assert encode_records(nobody) == []
    assert len(decode_records([], OUTCOMES["cohort"])) == 0


def test_records_of_another_kind_are_refused_by_name(sequences):
    with pytest.raises(ValueError, match=r"must have the features .*prolonged_los.*: got .*label"):
        decode_records(encode_records(sequences), OUTCOMES["pretraining"])


def test_integers_that_do_not_fit_are_refused(sequences):
    outcomes = OUTCOMES["cohort"] | {"prediction_time": np.int32}
    with pytest.raises(ValueError, match="integers beyond int32"):
        decode_records(encode_records(sequences), outcomes)


def test_damaged_records_are_refused_not_misread(sequences):
    records = encode_records(sequences)
    for damaged in (records[0][:-3], records[0] + b"\n", b"", b"\x12" + records[0][1:], b"\n\xff\xff"):
        with pytest.raises(ValueError, match=r"must be a tf\.train\.Example of patient sequences"):
            decode_records([records[1], damaged], OUTCOMES["cohort"])
