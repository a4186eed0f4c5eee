"""The pickles of the original project (ZhiGroup/Med-BERT), read without unpickling.

Nothing in a file is executed: see `plain_pickles`.

    types = read_types("data.types")
    sequences = read_bencs("data.bencs.train", types)
    sequences = with_vocabulary(sequences, code_names(types), vocabulary)

`with_vocabulary` and `count_patients`, to fit a vocabulary on the training file, are those of `data.serialization`.
"""

from collections import Counter
from itertools import chain
from pathlib import Path

import numpy as np

from medbert_jax.data.plain_pickles import REMAKE, plain_values
from medbert_jax.data.sequences import PatientSequences, concatenate

PROLONGED_LOS_DAYS = 7
"""A stay is prolonged when it lasts more days than this (paper)."""

_BENCS = ("patient_id", "length of stay per visit", "days to the next visit", "codes", "visits")
_COMBINED = ("patient_id", "label", "codes", "visits")
_MOST_DAYS = 10**6


def read_types(path) -> dict[str, int]:
    """The `.types` file: code as published ("ICD9_150.6") → number, "empty_pad" → 0.

    Raises ValueError for a file that is no pickle of such a dict, or that holds anything else; nothing is executed.
    """
    path = Path(path)
    values = list(plain_values(path))
    types = values[0]
    faults = [f"{len(values)} pickles instead of one"] * (len(values) != 1)
    if not isinstance(types, dict):
        faults.append(f"a {type(types).__name__} instead of a dict")
    else:
        faults += _counted(
            {
                "codes that are no text": sum(not isinstance(code, str) for code in types),
                "numbers that are no whole numbers from 0 to 2³¹": sum(
                    type(number) is not int or not 0 <= number < 2**31 for number in types.values()
                ),
                "codes that share a number": len(types) - len(set(map(str, types.values()))),
            }
        )
        if types.get("empty_pad") != 0:
            faults.append('no "empty_pad" of number 0')
    if faults:
        raise ValueError(_said(path, "a dict of codes and their numbers", faults))
    return types


def code_names(types: dict[str, int]) -> np.ndarray:
    """Full names ("ICD9CM/150.6") of the codes of `read_types`, sorted, each once; (codes,) text.

    ICD9_ is read as ICD-9-CM, ICD10_ as ICD-10-CM, in normal form; a text that is no such code stays as
    published.
    """
    return np.unique(_name_of_each(types)[1])


def read_bencs(path, types: dict[str, int]) -> PatientSequences:
    """A `.bencs.{train,valid,test}` file: histories with lengths of stay and the days between visits.

    `code_ids` are places in `code_names(types)`. Codes of a visit stay in the file's order, each once, at its first
    place. `visit_days` follow from stays and the days between them, −1 where a visit begins before the first; a
    negative length of stay is unknown (−1), as are ages, sex and race. The outcome is prolonged_los.

    Args:
        path: the file: one or several pickles of lists of [patient, stays, days to next, codes, visits].
        types: of the same run of the released script.

    Raises:
        ValueError: anything but lists, numbers and text in it (nothing is executed), a truncated or damaged file, or
            records that are not of this form: every fault counted.
    """
    return _read(Path(path), types, _BENCS)


def read_combined(path, types: dict[str, int]) -> PatientSequences:
    """A `*.combined_BertFT.*` file: histories with a label, 0 or 1; stays and days unknown. Else as `read_bencs`."""
    return _read(Path(path), types, _COMBINED)


def _read(path: Path, types: dict[str, int], names: tuple[str, ...]) -> PatientSequences:
    faults, parts = Counter(), []
    numbers, texts = _name_of_each(types)
    places = np.unique(texts, return_inverse=True)[1]
    for records in plain_values(path):
        part = _columns(records, names, numbers, places, path.stat().st_size, faults)
        parts += [] if part is None else [part]
    if not faults.total() and len(ids := np.concatenate([part.patient_id for part in parts])) > len(np.unique(ids)):
        text = "patients that are there more than once (a second run appends to the file)"
        faults[text] = len(ids) - len(np.unique(ids))
    if faults.total():
        raise ValueError(_said(path, f"lists of [{', '.join(names)}]", _counted(faults)))
    return concatenate(parts)


def _columns(records, names, numbers, places, size, faults: Counter) -> PatientSequences | None:
    """The patients of one pickle; None where faults were counted."""
    before = faults.total()
    if not isinstance(records, list) or not records:
        faults["pickles that are no list of patients"] += 1
        return None
    lists = [place for place, name in enumerate(names) if name not in ("patient_id", "label")]
    faults["records of another form"] += sum(
        not isinstance(record, list)
        or len(record) != len(names)
        or not _is_id(record[0])
        or not all(isinstance(record[place], list) for place in lists)
        for record in records
    )
    if faults.total() > before:
        return None
    # One list under many names is small in the file and large in memory; the released scripts write none.
    if sum(len(record[place]) for record in records for place in lists) > size:
        faults["pickles whose lists hold more numbers than the file has bytes"] += 1
        return None
    flat, lengths = {}, {}
    for place, name in enumerate(names[1:], start=1):
        values = [record[place] for record in records]
        if name == "label":
            faults["labels other than 0 and 1"] += sum(
                type(label) not in (int, bool) or label not in (0, 1) for label in values
            )
            continue
        lengths[name] = np.fromiter(map(len, values), np.int64, len(values))
        try:
            if not set(map(type, chain.from_iterable(values))) <= {int}:
                raise TypeError
            flat[name] = np.fromiter(chain.from_iterable(values), np.int64)
        except (TypeError, OverflowError):
            faults[f"records whose {name} are not whole numbers"] += sum(
                any(type(value) is not int or abs(value) >= 2**63 for value in one) for one in values
            )
    if faults.total() > before:
        return None
    codes, visits = lengths["codes"], flat["visits"]
    faults["records without a code"] += int((codes == 0).sum())
    faults["records with other numbers of codes than of visits"] += int((codes != lengths["visits"]).sum())
    if faults.total() > before:
        return None
    offsets = _offsets(codes)
    step = np.diff(visits, prepend=0)
    step[offsets[:-1]] = visits[offsets[:-1]]
    first_wrong = np.zeros(len(visits), bool)
    first_wrong[offsets[:-1]] = step[offsets[:-1]] != 1
    wrong = first_wrong | (step < 0) | (step > 1)
    faults["records whose visits are not 1, 2, 3 … in order"] += int((np.add.reduceat(wrong, offsets[:-1]) > 0).sum())
    place = np.minimum(np.searchsorted(numbers, flat["codes"]), len(numbers) - 1)
    faults["codes whose number is not in the .types"] += int((numbers[place] != flat["codes"]).sum())
    per_patient = visits[offsets[1:] - 1]
    for name in names[1:3] if names is _BENCS else ():
        faults[f"records with other numbers of visits than of {name}"] += int((lengths[name] != per_patient).sum())
        faults[f"values of {name} beyond {_MOST_DAYS:,} days"] += int((np.abs(flat[name]) > _MOST_DAYS).sum())
    if faults.total() > before:
        return None
    visit_offsets, owner = _offsets(per_patient), np.repeat(np.arange(len(codes)), codes)
    # Each code once per visit, at its first place.
    key = (visit_offsets[owner] + visits - 1) * (int(places.max(initial=0)) + 1) + places[place]
    kept = np.sort(np.unique(key, return_index=True)[1])
    stays = flat.get(_BENCS[1], np.full(visit_offsets[-1], -1))
    days = _visit_days(stays, flat[_BENCS[2]], visit_offsets) if names is _BENCS else np.full(visit_offsets[-1], -1)
    if names is _BENCS:
        outcomes = {"prolonged_los": np.maximum.reduceat(stays, visit_offsets[:-1]) > PROLONGED_LOS_DAYS}
    else:
        outcomes = {"label": np.array([record[1] for record in records])}
    starts = np.flatnonzero(np.diff((visit_offsets[owner] + visits)[kept], prepend=-1))
    rank = np.arange(len(kept)) - np.repeat(starts, np.diff(starts, append=len(kept)))
    return PatientSequences(
        patient_id=np.array([str(record[0]).encode() for record in records], dtype="S"),
        code_offsets=_offsets(np.bincount(owner[kept], minlength=len(codes))),
        code_ids=places[place][kept].astype(np.int32),
        visit_ids=visits[kept].astype(np.int32),
        serialization_ids=rank.astype(np.int32),
        visit_offsets=visit_offsets,
        visit_days=days.astype(np.int32),
        age_days=np.full(visit_offsets[-1], -1, np.int32),
        length_of_stay=np.maximum(stays, -1).astype(np.int32),
        sex=np.zeros(len(codes), np.int32),
        race=np.zeros(len(codes), np.int32),
        outcomes={name: values.astype(np.int32) for name, values in outcomes.items()},
    )


def _is_id(value) -> bool:
    return abs(value) < 2**63 if type(value) is int else isinstance(value, str) and bool(value.strip("\0 "))


def _visit_days(stays: np.ndarray, to_next: np.ndarray, offsets: np.ndarray) -> np.ndarray:
    """Admission days from the first visit's: a visit begins when the one before it has ended and its gap has passed."""
    passed = _offsets(stays + to_next)[:-1]
    days = passed - np.repeat(passed[offsets[:-1]], np.diff(offsets))
    return np.maximum(days, -1)


def _name_of_each(types: dict[str, int]) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of the codes, ascending, and their full names."""
    import polars as pl

    from medbert_jax.ehr.codes import normal_form
    from medbert_jax.ehr.med_bert_tsv import split_code

    codes = sorted((code for code in types if code != "empty_pad"), key=types.get)
    system, code = split_code(pl.col("published"))
    frame = pl.DataFrame({"published": codes}, schema={"published": pl.String}).with_columns(system=system, code=code)
    name = pl.concat_str("system", normal_form(pl.col("system"), pl.col("code")), separator="/")
    names = frame.select(pl.coalesce(name, "published")).to_series()
    return np.array([types[code] for code in codes], np.int64), np.array(names.to_list(), dtype=np.str_)


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])


def _counted(faults: dict[str, int]) -> list[str]:
    return [f"{count:,} {text}" for text, count in faults.items() if count]


def _said(path: Path, rule: str, faults: list[str]) -> str:
    return f"{path.name} must hold {rule}: got {'; '.join(faults)}; {REMAKE}"
