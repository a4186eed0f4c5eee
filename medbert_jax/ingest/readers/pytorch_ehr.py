"""Reader of the nested pickles of pytorch_ehr (ZhiGroup/pytorch_ehr): [patient, label, [[[days], [codes]], …]].

Visits are the newest or the oldest first, which no file says: the released script writes the newest first, and a line
of it is changed for the other. `.types` holds the codes and their numbers; codes may be text too. Nothing in a file is
executed: see `plain_pickles`.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from medbert_jax.ingest.reader import RawTable, Reader, SourceOptions
from medbert_jax.ingest.readers.med_bert_pickles import SPLITS, US_ICD, is_id, left_out, raise_faults, read_types
from medbert_jax.ingest.readers.med_bert_tsv import CODE_ASSUMPTION, split_code, tell_version
from medbert_jax.ingest.readers.plain_pickles import plain_values
from medbert_jax.ingest.rough import Rough
from medbert_jax.ingest.source_files import FileFault, RawFile, SourceError

_BOTH = "patients with codes of ICD-9 and of ICD-10 where those of ICD-9 come"
ASSUMPTIONS = (
    "There are no dates, only the order of visits, newest or oldest first as the option order says; the days between "
    "visits are not taken.",
    "A visit is one pair [days, codes]; the codes within a visit have no order; a visit without codes is none.",
    CODE_ASSUMPTION,
    "Splits are those of the files' names: train, valid and test are train, validation and test; a patient in two "
    "such files, or in a file of another name, has none.",
    "A patient in several files has the history of the first by name; the others leave under further_record.",
    "The labels are not taken, since EHR tables hold no outcomes and a label without a day predicts nothing; they are "
    "counted under label_not_taken, and medbert_jax.ingest.readers.pytorch_ehr.read_labels gives them.",
    "Birth, sex, race, death, lengths of stay, type of visit and way of discharge are unknown.",
)


@dataclass(frozen=True)
class PytorchEhrOptions(SourceOptions):
    """What the files leave open."""

    order: Literal["newest-first", "oldest-first"] | None = None
    """How the visits of a patient follow each other; must be given. The released script writes the newest first."""
    us_icd: bool = False
    """Whether ICD codes that do not say their version (I50.9, ICD_I50.9) are those of a US site: read as ICD-9-CM or
    ICD-10-CM by their shape; those that both have leave. Else they are of no system and leave, counted."""


def read_labels(path) -> pl.DataFrame:
    """The labels of a file: patient_id as in the EHR tables, label 0 or 1, in the file's order.

    Raises SourceError for a file that is not of this form, every fault counted; nothing is executed.
    """
    path = Path(path)
    if not path.is_file():
        raise SourceError(PYTORCH_EHR.format, [(path.name, "missing_file", "is not there")])
    try:
        frames = list(_records(RawFile(PYTORCH_EHR.tables[1], path, path.name), None))
    except FileFault as found:
        raise SourceError(PYTORCH_EHR.format, found.faults) from None
    return pl.concat(frames).select("patient_id", "label").unique("patient_id", maintain_order=True)


def _types(file: RawFile, files: Sequence[RawFile]) -> Iterator[pl.DataFrame]:
    return read_types(file, files, padded=False)


def _histories(file: RawFile, files: Sequence[RawFile]) -> Iterator[pl.DataFrame]:
    """One row per code of a file, checked against the .types beside it."""
    types = [other for other in files if other.table.name == "types"]
    numbers = np.empty(0, np.int64)
    if types:
        try:
            numbers = next(_types(types[0], types))["number"].to_numpy()
        except FileFault:
            numbers = None  # several or a bad one: said of that file
    return _records(file, numbers)


def _records(file: RawFile, numbers: np.ndarray | None) -> Iterator[pl.DataFrame]:
    """The codes of one pickle after the other; `numbers`: those that codes may have, None: any."""
    faults, ids, size = Counter(), [], file.path.stat().st_size
    for records in plain_values(file.path, file.name):
        frame = _frame(records, numbers, size, faults)
        if frame is not None and not faults.total():
            ids += [str(record[0]).strip() for record in records]
            yield frame.with_columns(file=pl.lit(file.name))
    if not faults.total():
        faults["repeated_patient", "patients that are there more than once"] = len(ids) - len(set(ids))
    raise_faults(file, faults)


def _frame(records, numbers: np.ndarray | None, size: int, faults: Counter) -> pl.DataFrame | None:
    """The codes of one pickle; what is wrong is added to the faults, and None comes back."""
    before = faults.total()
    if not isinstance(records, list) or not records:
        faults["record_form", "pickles that are no list of patients"] += 1
        return None
    read = [(record, _visits(record)) for record in records]
    histories = [visits for _, visits in read if visits is not None]
    ids = [record[0] for record, visits in read if visits is not None]
    faults["record_form", "records of another form"] += len(records) - len(histories)
    floats = sum(type(id) is float for id in ids)
    faults["float_id", "patient ids that are floats"] += floats
    faults["record_form", "patient ids that are neither whole numbers nor text"] += (
        sum(not is_id(id) for id in ids) - floats
    )
    if faults.total() > before:
        return None
    faults["label_value", "labels other than 0 and 1"] += sum(
        type(record[1]) not in (int, bool) or record[1] not in (0, 1) for record in records
    )
    visits = [codes for history in histories for codes in history]
    lengths = np.fromiter(map(len, visits), np.int64, len(visits))
    # One list under many names is small in the file and large in memory; the released script writes none.
    if lengths.sum() + len(visits) > size:
        faults["shared_lists", "pickles whose lists hold more than the file has bytes"] += 1
        return None
    flat = list(chain.from_iterable(visits))
    as_text = [isinstance(code, str) for code in flat]
    whole = [type(code) is int and 0 <= code < 2**31 for code in flat]
    faults["not_whole", "codes that are neither text nor whole numbers from 0 to 2³¹"] += (
        len(flat) - sum(as_text) - sum(whole)
    )
    faults["empty_record", "records without a code"] += sum(not any(history) for history in histories)
    if faults.total() > before:
        return None
    named = pl.Series([code if said else None for code, said in zip(flat, as_text, strict=True)], dtype=pl.String)
    number = pl.Series([None if said else code for code, said in zip(flat, as_text, strict=True)], dtype=pl.Int32)
    if numbers is not None:
        unknown = int((~np.isin(number.drop_nulls().to_numpy(), numbers)).sum())
        faults["unknown_number", "codes whose number is in no .types beside it"] += unknown
    if faults.total() > before:
        return None
    counts = np.fromiter(map(len, histories), np.int64, len(histories))
    owner = np.repeat(np.repeat(np.arange(len(records)), counts), lengths)
    place = np.arange(len(visits)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return pl.DataFrame(
        {
            "patient_id": pl.Series([str(id).strip() for id in ids]).gather(owner),
            "visit": pl.Series(np.repeat(place, lengths), dtype=pl.Int32),
            "number": number,
            "named": named,
            "label": pl.Series([int(record[1]) for record in records], dtype=pl.Int8).gather(owner),
        }
    )


def _visits(record) -> list[list] | None:
    """The codes of each visit of [patient, label, [VISIT, …]] or [patient, label, VISIT, …]; None for other forms."""
    if not isinstance(record, list) or len(record) < 3:
        return None
    visits = record[2:]
    if len(record) == 3 and isinstance(record[2], list) and not _is_visit(record[2]):
        (visits,) = visits
    return [visit[1] for visit in visits] if all(map(_is_visit, visits)) else None


def _is_visit(visit) -> bool:
    """Whether it is [[days], [codes]]."""
    return (
        isinstance(visit, list)
        and len(visit) == 2
        and all(isinstance(part, list) for part in visit)
        and len(visit[0]) == 1
        and type(visit[0][0]) in (int, float)
    )


def _build(raw: dict[str, pl.DataFrame], options: PytorchEhrOptions) -> Rough:
    if options.order is None:
        raise ValueError(
            "files of pytorch_ehr do not say whether a patient's newest or oldest visit is first: got no"
            " --options.order; give --options.order newest-first, as the released script writes them, or oldest-first"
        )
    rows = raw["histories"]
    records = rows.group_by("patient_id", "file").agg(
        pl.col("visit").n_unique().alias("visits"), codes=pl.len()
    ).with_columns(
        split=pl.col("file").str.to_lowercase().str.extract(r"\.(\w+)$")
        .replace_strict(SPLITS, default=None, return_dtype=pl.String)
    ).sort("patient_id", "file")  # fmt: skip
    patients = records.group_by("patient_id", maintain_order=True).agg(
        pl.col("file").first(), split=pl.when(pl.col("split").n_unique() == 1).then(pl.col("split").first())
    )
    record = ["patient_id", "file"]
    further = records.join(patients, on=record, how="anti")
    rows = rows.join(patients, on=record, how="semi")
    place = pl.col("visit") if options.order == "oldest-first" else -pl.col("visit")
    rows = rows.with_columns(order=place.rank("dense").over("patient_id").cast(pl.Int32))
    rows = rows.with_columns(visit_id=pl.concat_str("patient_id", "order", separator="-"))
    if "types" in raw:
        types = raw["types"].select("number", typed="code")
        rows = rows.join(types, on="number", how="left").with_columns(named=pl.coalesce("named", "typed"))
    system, code = split_code(pl.col("named"))
    codes = rows.with_columns(code_system=system, code=code)
    left = left_out(further, records.height, "Labels, counted as codes")
    if options.us_icd:
        codes, undecided = tell_version(codes)
        left.append(undecided)
    return Rough(
        patients=patients.drop("file"),
        visits=rows.select("patient_id", "visit_id", "order").unique(maintain_order=True),
        diagnoses=codes.select("patient_id", "visit_id", "code_system", "code"),
        has_dates=False,
        age_precision="unknown",
        assumptions=(*ASSUMPTIONS, *[US_ICD] * options.us_icd),
        left=tuple(left),
        told=_versions_in_order(codes),
    )


def _versions_in_order(codes: pl.DataFrame) -> Counter[str]:
    """Patients whose last visit with ICD-9-CM is before their first with ICD-10-CM, and those where it is after it."""
    of = {system: pl.col("order").filter(pl.col("code_system") == system) for system in ("ICD9CM", "ICD10CM")}
    both = codes.group_by("patient_id").agg(
        before=of["ICD9CM"].max() < of["ICD10CM"].min(), after=of["ICD9CM"].min() > of["ICD10CM"].max()
    )
    return +Counter({f"{_BOTH} {where}": int(both[where].sum()) for where in ("before", "after")})


def _check(told: Counter[str], options: PytorchEhrOptions) -> tuple[str, ...]:
    """Raise ValueError where ICD-10 mostly comes before ICD-9: the order was told the wrong way round."""
    before, after = (told[f"{_BOTH} {where}"] for where in ("before", "after"))
    if after > max(before, 9):
        other = "oldest-first" if options.order == "newest-first" else "newest-first"
        raise ValueError(
            f"codes of ICD-9 must come before those of ICD-10: got {after:,} patients with all of them after and"
            f" {before:,} with all before, under --options.order {options.order}; give --options.order {other}"
        )
    return ()


PYTORCH_EHR = Reader(
    format="pytorch-ehr",
    tables=(
        RawTable("types", "", ("number", "code"), needed=False, files=("*.types",), frames=_types),
        RawTable(
            "histories",
            "patient_id",
            ("patient_id", "file", "visit", "number", "named", "label"),
            files=("*.combined.*", "*.pkl", "*.pickle"),
            frames=_histories,
        ),
    ),
    build=_build,
    options=PytorchEhrOptions,
    check=_check,
)
