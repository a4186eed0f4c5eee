"""Reader of the pickles of the original project (ZhiGroup/Med-BERT): histories that are in order already.

`.types` holds the codes and their numbers; `.bencs.{train,valid,test}` lists of [patient, lengths of stay, days to the
next visit, codes, visits]; `combined_BertFT.{train,…}` lists of [patient, label, codes, visits]. Nothing in a file is
executed: see `plain_pickles`. One pickle is in memory at a time; the released scripts write several into one file.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ingest.reader import RawTable, Reader
from medbert_jax.ingest.readers.med_bert_tsv import CODE_ASSUMPTION, MedBertOptions, split_code, tell_version
from medbert_jax.ingest.readers.plain_pickles import plain_values
from medbert_jax.ingest.rough import Left, Rough
from medbert_jax.ingest.source_files import Fault, FileFault, RawFile, SourceError

_BENCS = ("patient_id", "length of stay per visit", "days to the next visit", "codes", "visits")
_COMBINED = ("patient_id", "label", "codes", "visits")
_MOST_DAYS = 10**6
SPLITS = {"train": "train", "valid": "validation", "validation": "validation", "test": "test"}
US_ICD = (
    "Codes whose ICD version the source does not say are of a US site: their shape tells ICD-9-CM from ICD-10-CM. "
    "Where both have such a code (V27.0) it leaves under undecided_version, since there are no days."
)
ASSUMPTIONS = (
    "Visits are numbered as the released scripts did it: all rows with one discharge date are one visit. There are no "
    "dates, only their order; the days to the next visit (.bencs) are not taken.",
    "The codes of a visit are in the file's order, which is kept as priority 1, 2, 3 …; present on admission and "
    "captured at billing went into that order and are unknown.",
    "Length of stay is stated by .bencs, where a negative one is unknown; in combined files it is unknown.",
    CODE_ASSUMPTION,
    "Splits are those of the files' names: train, valid and test are train, validation and test; a patient in two "
    "such files, or in a file of another name, has none.",
    "A patient in several files has the history of .bencs, else of the first combined file by name; the others leave "
    "under further_record.",
    "The labels of combined files are not taken, since EHR tables hold no outcomes and cohorts find theirs in the "
    "codes; they are counted under label_not_taken, and medbert_jax.ingest.readers.med_bert_pickles.read_labels gives "
    "them.",
    "Birth, sex, race, death, type of visit and way of discharge are unknown.",
)


def read_labels(path) -> pl.DataFrame:
    """The labels of a combined file: patient_id as in the EHR tables, label 0 or 1, in the file's order.

    Raises SourceError for a file that is not of this form, every fault counted; nothing is executed.
    """
    path = Path(path)
    file = RawFile(MED_BERT_PICKLES.tables[1], path, path.name)
    if not path.is_file():
        raise SourceError(MED_BERT_PICKLES.format, [(path.name, "missing_file", "is not there")])
    try:
        frames = [frame.select("patient_id", "label") for frame in _records(file, _COMBINED, None)]
    except FileFault as found:
        raise SourceError(MED_BERT_PICKLES.format, found.faults) from None
    return pl.concat(frames).unique("patient_id", maintain_order=True)


def read_types(file: RawFile, files: Sequence[RawFile], *, padded: bool = True) -> Iterator[pl.DataFrame]:
    """number, code of a .types file; the empty_pad, which must be there where it is `padded`, is none."""
    others = [other.name for other in files if other.table.name == "types" and other.name != file.name]
    if others:
        what = f"is there beside {', '.join(others)}: the numbers of one mean other codes in the other"
        raise FileFault(file.name, "two_files", what)
    values = list(plain_values(file.path, file.name))
    types, faults = values[0], Counter()
    if len(values) > 1:
        faults["types_form", "further pickles after the first"] = len(values) - 1
    if not isinstance(types, dict):
        faults["types_form", f"{type(types).__name__} instead of a dict"] = 1
    else:
        numbers = [number for number in types.values() if type(number) is int and 0 <= number < 2**31]
        faults["types_form", "codes that are no text"] = sum(not isinstance(code, str) for code in types)
        faults["types_form", "numbers that are no whole numbers from 0 to 2³¹"] = len(types) - len(numbers)
        faults["types_form", "codes that share a number"] = len(numbers) - len(set(numbers))
        faults["types_form", 'code "empty_pad" of number 0 missing'] = int(padded and types.get("empty_pad") != 0)
    raise_faults(file, faults)
    codes = {code: number for code, number in types.items() if code != "empty_pad"}
    yield pl.DataFrame({"number": codes.values(), "code": codes.keys()}, schema={"number": pl.Int32, "code": pl.String})


def _histories(file: RawFile, files: Sequence[RawFile]) -> Iterator[pl.DataFrame]:
    """One row per code of a .bencs or combined file, checked against the .types beside it."""
    try:
        (types,) = (other for other in files if other.table.name == "types")
        numbers = next(read_types(types, files))["number"].sort().to_numpy()
    except (ValueError, FileFault):
        numbers = None  # none, several or a bad one: said of that file
    return _records(file, _COMBINED if "combined" in file.path.name.lower() else _BENCS, numbers)


def _records(file: RawFile, names: tuple[str, ...], numbers: np.ndarray | None) -> Iterator[pl.DataFrame]:
    faults, ids, size = Counter(), [], file.path.stat().st_size
    for records in plain_values(file.path, file.name):
        frame = _frame(records, names, numbers, size, faults)
        if frame is not None and not faults.total():
            ids.append(frame.filter(pl.col("visit") == 1, pl.col("place") == 1)["patient_id"])
            yield frame.with_columns(file=pl.lit(file.name))
    if not faults.total():
        every = pl.concat(ids)
        faults["repeated_patient", "patients that are there more than once"] = len(every) - every.n_unique()
    raise_faults(file, faults)


def raise_faults(file: RawFile, faults: Counter) -> None:
    """Raise FileFault with what was counted under (rule, text)."""
    found: list[Fault] = [
        (file.name, rule, f"holds {count:,} {text}") for (rule, text), count in faults.items() if count
    ]
    if found:
        raise FileFault(*found[0], *found[1:])


def _frame(records, names, numbers: np.ndarray | None, size: int, faults: Counter) -> pl.DataFrame | None:
    """The codes of one pickle; what is wrong is added to the faults, and None comes back."""
    before = faults.total()
    if not isinstance(records, list) or not records:
        faults["record_form", "pickles that are no list of patients"] += 1
        return None
    lists = [place for place, name in enumerate(names) if name not in ("patient_id", "label")]
    shaped = [
        record
        for record in records
        if isinstance(record, list)
        and len(record) == len(names)
        and all(isinstance(record[place], list) for place in lists)
    ]
    faults["record_form", "records of another form"] += len(records) - len(shaped)
    floats = sum(type(record[0]) is float for record in shaped)
    faults["float_id", "patient ids that are floats"] += floats
    faults["record_form", "patient ids that are neither whole numbers nor text"] += (
        sum(not is_id(record[0]) for record in shaped) - floats
    )
    if faults.total() > before:
        return None
    # One list under many names is small in the file and large in memory; the released scripts write none.
    if sum(len(record[place]) for record in records for place in lists) > size:
        faults["shared_lists", "pickles whose lists hold more numbers than the file has bytes"] += 1
        return None
    flat, lengths = {}, {}
    for place, name in enumerate(names[1:], start=1):
        values = [record[place] for record in records]
        if name == "label":
            faults["label_value", "labels other than 0 and 1"] += sum(
                type(label) not in (int, bool) or label not in (0, 1) for label in values
            )
            continue
        lengths[name] = np.fromiter(map(len, values), np.int64, len(values))
        try:
            if not set(map(type, chain.from_iterable(values))) <= {int}:
                raise TypeError
            flat[name] = np.fromiter(chain.from_iterable(values), np.int64)
        except (TypeError, OverflowError):
            faults["not_whole", f"records whose {name} are not whole numbers"] += sum(
                any(type(value) is not int or abs(value) >= 2**63 for value in one) for one in values
            )
    if faults.total() > before:
        return None
    codes = lengths["codes"]
    faults["empty_record", "records without a code"] += int((codes == 0).sum())
    faults["unequal_lists", "records with other numbers of codes than of visits"] += int(
        (codes != lengths["visits"]).sum()
    )
    if faults.total() > before:
        return None
    visits, ends = flat["visits"], np.cumsum(codes)
    starts = ends - codes
    step = np.diff(visits, prepend=0)
    step[starts] = visits[starts]
    wrong = (step < 0) | (step > 1)
    wrong[starts] = step[starts] != 1
    faults["visit_numbers", "records whose visits are not 1, 2, 3 … in order"] += int(
        (np.add.reduceat(wrong, starts) > 0).sum()
    )
    if numbers is not None:
        unknown = int((~np.isin(flat["codes"], numbers)).sum())
        faults["unknown_number", "codes whose number is not in the .types"] += unknown
    last = visits[ends - 1]
    for name in names[1:3] if names is _BENCS else ():
        faults["unequal_lists", f"records with other numbers of visits than of {name}"] += int(
            (lengths[name] != last).sum()
        )
        faults["day_range", f"values of {name} beyond {_MOST_DAYS:,} days"] += int(
            (np.abs(flat[name]) > _MOST_DAYS).sum()
        )
    if faults.total() > before:
        return None
    owner = np.repeat(np.arange(len(codes)), codes)
    visit = (np.cumsum(last) - last)[owner] + visits - 1  # its place among those of all patients
    begins = np.flatnonzero(np.diff(visit, prepend=-1))
    stays = pl.Series(flat[names[1]][visit] if names is _BENCS else [None] * len(visit), dtype=pl.Int32)
    labels = [int(record[1]) if names is _COMBINED else None for record in records]
    return pl.DataFrame(
        {
            "patient_id": pl.Series([str(record[0]).strip() for record in records]).gather(owner),
            "visit": pl.Series(visits, dtype=pl.Int32),
            "place": pl.Series(np.arange(1, len(visit) + 1) - begins[visit], dtype=pl.Int32),
            "number": pl.Series(flat["codes"], dtype=pl.Int32, strict=False),
            "length_of_stay": stays.set(stays < 0, None),
            "label": pl.Series(labels, dtype=pl.Int8).gather(owner),
        }
    )


def is_id(value) -> bool:
    """Whether a patient may be called so: a whole number of 64 bits, or text without NUL."""
    if type(value) is int:
        return abs(value) < 2**63
    return isinstance(value, str) and bool(value.strip()) and "\0" not in value


def left_out(further: pl.DataFrame, labels: int, of_labels: str) -> list[Left]:
    """The lines of histories (visits, codes) of patients who have one already, and of labels, in the words for them."""
    visits, codes = (int(further[level].sum()) for level in ("visits", "codes"))
    text = "Histories of patients who have one in another file"
    return [
        Left("further_record", text, patients=further.height, visits=visits, codes=codes),
        Left("label_not_taken", of_labels, codes=labels),
    ]


def _build(raw: dict[str, pl.DataFrame], options: MedBertOptions) -> Rough:
    rows, kind = raw["histories"], pl.col("file").str.to_lowercase()
    records = rows.group_by("patient_id", "file").agg(visits=pl.col("visit").max(), codes=pl.len())
    records = records.with_columns(
        combined=kind.str.contains("combined[^/]*$"),
        split=kind.str.extract(r"\.(\w+)$").replace_strict(SPLITS, default=None, return_dtype=pl.String),
    ).sort("patient_id", "combined", "file")
    alike = pl.col("split").filter(pl.col("combined") == pl.col("combined").first())
    patients = records.group_by("patient_id", maintain_order=True).agg(
        pl.col("file").first(), split=pl.when(alike.n_unique() == 1).then(alike.first())
    )
    record = ["patient_id", "file"]
    further = records.join(patients, on=record, how="anti")
    rows = rows.join(patients, on=record, how="semi").with_columns(
        visit_id=pl.concat_str("patient_id", "visit", separator="-")
    )
    system, code = split_code(pl.col("code"))
    codes = rows.join(raw["types"].select("number", code_system=system, code=code), on="number", how="left")
    labels = int(records["combined"].sum())
    left = left_out(further, labels, "Labels of combined files, counted as codes")
    if options.us_icd:
        codes, undecided = tell_version(codes)
        left.append(undecided)
    return Rough(
        patients=patients.drop("file"),
        visits=rows.select("patient_id", "visit_id", "length_of_stay", order="visit").unique(maintain_order=True),
        diagnoses=codes.select("patient_id", "visit_id", "code_system", "code", priority="place"),
        has_dates=False,
        age_precision="unknown",
        assumptions=(*ASSUMPTIONS, *[US_ICD] * options.us_icd),
        left=tuple(left),
    )


_COLUMNS = ("patient_id", "file", "visit", "place", "number", "length_of_stay")
MED_BERT_PICKLES = Reader(
    format="med-bert-pickles",
    tables=(
        RawTable("types", "", ("number", "code"), files=("*.types",), frames=read_types),
        RawTable("histories", "patient_id", _COLUMNS, files=("*.bencs*", "*combined_BertFT*"), frames=_histories),
    ),
    build=_build,
    options=MedBertOptions,
)
