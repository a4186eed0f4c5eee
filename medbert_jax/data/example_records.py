"""Patient sequences ↔ serialized tf.train.Example records, vectorised over the patients of a shard.

The TFDS dataset's files hold one record per patient. TFDS makes and parses them one by one in Python, two to
seven thousand a second, and its protobuf writes the features of a record in an order that changes from
process to process. Here the columns of a whole shard become records at once, features sorted by name, so the
same patients are the same bytes everywhere; and records become columns whatever order their features have.

A record is Example{1: Features{1: entry…}}, an entry is {1: name, 2: Feature}, a Feature is {1: BytesList} or
{3: Int64List}, each with its values in field 1, integers packed as varints (protobuf wire format).
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from medbert_jax.data.sequences import PatientSequences, offsets_of, sums_within

CODE_FEATURES = ("code_ids", "visit_ids", "serialization_ids")
VISIT_FEATURES = ("visit_days", "age_days", "length_of_stay")
PATIENT_FEATURES = ("sex", "race")
OUTCOMES: dict[str, dict[str, type]] = {
    "pretraining": {"prolonged_los": np.int32},
    "cohort": {
        "label": np.int32,
        "index_day": np.int32,
        "index_order": np.int32,
        "prediction_time": np.int64,
    },
}
"""Kind of dataset → the outcomes of its patients and their dtypes; prediction_time is in µs since 1970."""

# Field number and wire type 2 (a length follows), as one byte.
_FIELD_1, _FIELD_2, _FIELD_3 = 0x0A, 0x12, 0x1A
_LONGEST_VARINT = 10


def encode_records(sequences: PatientSequences) -> list[bytes]:
    """Return one serialized tf.train.Example per patient."""
    if not len(sequences):
        return []
    columns = {name: (getattr(sequences, name), sequences.code_offsets) for name in CODE_FEATURES}
    columns |= {name: (getattr(sequences, name), sequences.visit_offsets) for name in VISIT_FEATURES}
    each = np.arange(len(sequences) + 1)
    columns |= {name: (getattr(sequences, name), each) for name in PATIENT_FEATURES}
    columns |= {name: (values, each) for name, values in sequences.outcomes.items()}
    entries = [("patient_id", _bytes_list(sequences.patient_id), _FIELD_1)]
    entries += [(name, _int64_list(values, offsets), _FIELD_3) for name, (values, offsets) in columns.items()]
    pieces = []
    for name, value_list, kind in sorted(entries, key=lambda entry: entry[0]):
        feature = _framed(value_list, kind)
        key = bytes([_FIELD_1, len(name), *name.encode()])
        pieces += _framed([key, *_framed(feature, _FIELD_2)], _FIELD_1)
    starts, content = _joined(_framed(pieces, _FIELD_1), len(sequences))
    return [content[start:end] for start, end in pairwise(starts)]


# A piece of every record: the same bytes in all of them, or (lengths (n,), the bytes of all in a row).
_Piece = bytes | tuple[np.ndarray, np.ndarray]


def _framed(pieces: list[_Piece], field: int) -> list[_Piece]:
    """Return the pieces as the value of a field: its tag and their length in front."""
    length = sum(len(piece) if isinstance(piece, bytes) else piece[0] for piece in pieces)
    return [bytes([field]), _varints(np.asarray(length)), *pieces]


def _bytes_list(values: np.ndarray) -> list[_Piece]:
    values = np.ascontiguousarray(values)
    lengths = np.char.str_len(values).astype(np.int64)
    content = values.view(np.uint8).reshape(len(values), -1)
    return _framed([(lengths, content[np.arange(content.shape[1]) < lengths[:, None]])], _FIELD_1)


def _int64_list(values: np.ndarray, offsets: np.ndarray) -> list[_Piece]:
    sizes, content = _varints(values)
    lengths = sums_within(sizes, offsets)
    # Protobuf leaves the field out where it has no values.
    filled = lengths > 0
    sizes, frames = _varints(lengths[filled])
    frame_lengths = np.zeros_like(lengths)
    frame_lengths[filled] = sizes
    tags = np.full(filled.sum(), _FIELD_1, np.uint8)
    return [(filled.astype(np.int64), tags), (frame_lengths, frames), (lengths, content)]


def _varints(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return each value's size as a varint, and the varints one after the other."""
    values = values.astype(np.int64).view(np.uint64)
    sizes = np.ones(len(values), np.int64)
    for step in range(1, _LONGEST_VARINT):
        longer = values >= np.uint64(1 << 7 * step)
        if not longer.any():
            break
        sizes += longer
    starts = np.cumsum(sizes) - sizes
    content = np.empty(int(sizes.sum()), np.uint8)
    for step in range(sizes.max(initial=0)):
        here = np.flatnonzero(sizes > step)
        low = (values[here] >> np.uint64(7 * step)).astype(np.uint8) & np.uint8(0x7F)
        content[starts[here] + step] = low | ((sizes[here] > step + 1).astype(np.uint8) << 7)
    return sizes, content


def _joined(pieces: list[_Piece], records: int) -> tuple[list[int], bytes]:
    """Return where each record starts (and the last ends), and the records one after the other."""
    lengths = [np.full(records, len(p)) if isinstance(p, bytes) else p[0] for p in pieces]
    starts = offsets_of(sum(lengths, start=np.zeros(records, np.int64)))
    content = np.empty(int(starts[-1]), np.uint8)
    place = starts[:-1].copy()
    for piece, length in zip(pieces, lengths, strict=True):
        if isinstance(piece, bytes):
            content[place[:, None] + np.arange(len(piece))] = np.frombuffer(piece, np.uint8)
        else:
            content[_stretches(place, length)] = piece[1]
        place += length
    return starts.tolist(), content.tobytes()


def _stretches(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return starts[0], starts[0] + 1, … (lengths[0] of them), starts[1], …."""
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(int(lengths.sum()))


def decode_records(records: Sequence[bytes], outcomes: dict[str, type]) -> PatientSequences:
    """Return the patients of serialized tf.train.Example records, in their order.

    `outcomes` names the outcomes and their dtypes, as in `OUTCOMES`. Raises ValueError when a record is not
    one of such a dataset.
    """
    # A length at the very end may be read past it: pad.
    content = np.frombuffer(b"".join([*records, bytes(_LONGEST_VARINT)]), np.uint8)
    sizes = np.fromiter(map(len, records), np.int64, len(records))
    names = {*CODE_FEATURES, *VISIT_FEATURES, *PATIENT_FEATURES, *outcomes, "patient_id"}
    values = dict.fromkeys(names, (sizes, sizes))
    if records:
        values = _features(content, np.cumsum(sizes) - sizes, sizes)
    if values.keys() != names:
        raise ValueError(
            f"the records of this dataset must have the features {sorted(names)}: got"
            f" {sorted(values)}; prepare the dataset again with this version"
        )
    lengths, columns = {}, {}
    for name in names - {"patient_id"}:
        dtype = outcomes.get(name, np.int32)
        lengths[name], columns[name] = _packed_integers(content, *values[name], dtype)
    _check_lengths(lengths, outcomes)
    patient_id = _texts(content, *values["patient_id"])
    return PatientSequences(
        patient_id=patient_id,
        code_offsets=offsets_of(lengths["code_ids"]),
        visit_offsets=offsets_of(lengths["visit_days"]),
        outcomes={name: columns[name] for name in outcomes},
        **{name: columns[name] for name in (*CODE_FEATURES, *VISIT_FEATURES, *PATIENT_FEATURES)},
    )


def _check_lengths(lengths: dict[str, np.ndarray], outcomes: dict[str, type]) -> None:
    first = dict.fromkeys(CODE_FEATURES, "code_ids") | dict.fromkeys(VISIT_FEATURES, "visit_days")
    wrong = [
        name
        for name, counts in lengths.items()
        if not np.array_equal(counts, lengths[first[name]] if name in first else np.ones_like(counts))
    ]
    if wrong:
        raise ValueError(
            "code features, visit features and single values must agree in length within a record: got other"
            f" lengths in {sorted(wrong)}; prepare the dataset again"
        )


def _features(content: np.ndarray, starts: np.ndarray, sizes: np.ndarray) -> dict[str, tuple]:
    """Return, by feature name, where the Feature of each record starts and ends; all records in lockstep."""
    found: dict[bytes, tuple[np.ndarray, np.ndarray]] = {}
    place, end = _entered(content, starts, starts + sizes, _FIELD_1)
    while (place < end).any():
        entry, entry_end = _entered(content, place, end, _FIELD_1, last=False)
        key, key_end = _entered(content, entry, entry_end, _FIELD_1, last=False)
        feature, feature_end = _entered(content, key_end, entry_end, _FIELD_2)
        names = _texts_between(content, key, key_end)
        left = np.arange(len(names))
        while len(left):  # one round where all records have the same order
            name, same = names[left[0]], names[left] == names[left[0]]
            where = found.setdefault(name, (np.full(len(names), -1), np.full(len(names), -1)))
            where[0][left[same]], where[1][left[same]] = feature[left[same]], feature_end[left[same]]
            left = left[~same]
        place = entry_end
    if any((feature < 0).any() for feature, _ in found.values()):
        raise _damaged("different features")
    return {name.decode(): where for name, where in found.items()}


def _entered(content: np.ndarray, place, limit, field: int, *, last=True) -> tuple[np.ndarray, np.ndarray]:
    """Return where the value of the field at `place` starts and ends, in every record.

    It must end at `limit`, or before it where the field is not the `last` one.
    """
    if (place >= limit).any() or (content[place] != field).any():
        raise _damaged("fields of another kind")
    after, length, shift, more = place + 1, np.zeros_like(place), 0, np.ones(len(place), bool)
    while more.any():
        byte = content[after]
        length |= np.where(more, byte & np.uint8(0x7F), 0).astype(np.int64) << shift
        after, more, shift = after + more, more & (byte >= 0x80), shift + 7
        if (after > limit).any():
            raise _damaged("lengths beyond its end")
    if ((after + length != limit) if last else (after + length > limit)).any():
        raise _damaged("lengths that do not end where it ends")
    return after, after + length


def _packed_integers(content, starts, ends, dtype) -> tuple[np.ndarray, np.ndarray]:
    """Return how many integers each record has in the Features at `starts`, and all of them."""
    first, last = (bounds.copy() for bounds in _entered(content, starts, ends, _FIELD_3))
    filled = np.flatnonzero(first < last)
    first[filled], last[filled] = _entered(content, first[filled], last[filled], _FIELD_1)
    raw = content[_stretches(first, last - first)]
    closing = raw < 0x80
    bounds = offsets_of(last - first)
    if not closing[bounds[1:][filled] - 1].all():
        raise _damaged("integers beyond its end")
    counts = sums_within(closing, bounds)
    stops = np.flatnonzero(closing)
    begins = np.concatenate([[0], stops[:-1] + 1]) if len(stops) else stops
    sizes = stops - begins + 1
    values = (raw[begins] & np.uint8(0x7F)).astype(np.uint64)
    for step in range(1, sizes.max(initial=0)):
        here = np.flatnonzero(sizes > step)
        values[here] |= (raw[begins[here] + step] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * step)
    integers = values.view(np.int64)
    if not np.array_equal(integers.astype(dtype), integers):
        raise _damaged(f"integers beyond {np.dtype(dtype)}")
    return counts, integers.astype(dtype)


def _texts(content, starts, ends) -> np.ndarray:
    """Return the one text of each of the Features at `starts`, as bytes ('S')."""
    return _texts_between(content, *_entered(content, *_entered(content, starts, ends, _FIELD_1), _FIELD_1))


def _texts_between(content, starts, ends) -> np.ndarray:
    width = max(int((ends - starts).max(initial=1)), 1)
    offset = np.arange(width)
    places = np.minimum(starts[:, None] + offset, len(content) - 1)
    texts = np.where(offset < (ends - starts)[:, None], content[places], 0).astype(np.uint8)
    return np.ascontiguousarray(texts).view(f"S{width}")[:, 0]


def _damaged(what: str) -> ValueError:
    return ValueError(
        f"a record of this dataset must be a tf.train.Example of patient sequences: got {what};"
        " the file is damaged or foreign, prepare the dataset again"
    )
