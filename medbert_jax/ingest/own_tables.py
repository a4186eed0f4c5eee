"""Tables of one's own in memory → EHR tables on disk, by the way of every source: same rules, ledger and shards."""

import difflib
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal

import polars as pl

from medbert_jax.attrition.disclosure import masked
from medbert_jax.attrition.ledger import Ledger
from medbert_jax.disk.scratch_folder import scratch_beside
from medbert_jax.ehr.tables import read_source
from medbert_jax.ingest.ingest import ingest, summary
from medbert_jax.ingest.job import IngestOptions
from medbert_jax.ingest.readers.own_tables import NEEDED, OWN_TABLES, OwnOptions, columns_of

_RAW = {table.name: table for table in OWN_TABLES.tables}
_INDEX = "__index_level_"  # what Arrow calls the unnamed index of a pandas frame


def write_ehr_tables(
    folder,
    *,
    patients,
    visits,
    diagnoses,
    medications=None,
    measurements=None,
    procedures=None,
    follow_up=None,
    has_dates: bool = True,
    us_icd: bool = False,
    icd9_zeros: Literal["refuse", "restore", "keep"] = "refuse",
    assumptions: Sequence[str] = (),
    shards: int = 0,
    workers: int = 1,
    common: IngestOptions | None = None,
    announce: Callable[[str], None] = print,
) -> Ledger:
    """Write tables of one's own as EHR tables; print and return the ledger of patients, visits and diagnosis codes.

    A table is a polars, pandas (2.2 or later) or Arrow one, or whatever has `__arrow_c_stream__`; a polars LazyFrame is
    never in memory as a whole. Columns are those of `medbert_jax.ehr.schema.SCHEMAS`, of patients
    "birth_year" and "split" (train | validation | test) too. Needed are patient_id, of visits visit_id and admit_time,
    of diagnoses visit_id, code and code_system, of follow_up start and end, of the others code and code_system; the
    rest is unknown where it is not there. Ids are whole numbers or text, times dates, times or text as 2011-05-03
    14:05. The rows go through the rules of every source (docs/data.md); an earlier set of tables in the folder is
    replaced.

    Args:
        folder: will hold the EHR tables.
        patients: one row each.
        visits: one row each.
        diagnoses: one row for each code of a visit.
        medications: optional, as the next two.
        measurements: with value and unit.
        procedures: with time, as the two before.
        follow_up: times in which what happens to a patient reaches the source: start and end, both days in it.
        has_dates: whether visits have dates; else they need `order` (1, 2, 3 …) in place of admit_time.
        us_icd: codes of the system "ICD" are ICD-9-CM or ICD-10-CM, as their shape tells.
        icd9_zeros: what becomes of ICD-9 without a dot that lost its leading zeros (--options.icd9-zeros).
        assumptions: what was assumed when the tables were made; goes into source.json.
        shards: parts that the tables are cut into; 0 takes as many as keep a worker below 1 GB.
        workers: processes; 0: one per core. More than one wants the call under `if __name__ == "__main__":`.
        common: options of `medbert ingest` that hold for every source.
        announce: gets the lines that are printed.

    Raises:
        ValueError: tables or columns that are none of these or missing, all listed; no patients, visits or codes left.
        SourceError: columns that hold no ids, codes or times, all listed; it is a ValueError.
        BlockingIOError: another process is writing the folder.
    """
    given = {"patients": patients, "visits": visits, "diagnoses": diagnoses, "medications": medications,
             "measurements": measurements, "procedures": procedures, "follow_up": follow_up}  # fmt: skip
    faults: list[str] = []
    frames = {name: lazy_table(name, table, faults) for name, table in given.items() if table is not None}
    for name, frame in frames.items():
        if frame is not None:
            faults += _column_faults(name, frame.collect_schema().names(), has_dates)
    faults += [f"{name}: is not given" for name in ("patients", "visits", "diagnoses") if given[name] is None]
    if faults:
        raise ValueError(
            f"tables of one's own must have the columns of the schema: got {len(faults)} fault(s):\n  - "
            + "\n  - ".join(faults)
            + "\nrename, add or drop these columns; docs/own_tables.md has all of them"
        )
    options = OwnOptions(has_dates=has_dates, us_icd=us_icd, icd9_zeros=icd9_zeros, assumptions=tuple(assumptions))
    with scratch_beside(folder) as work:
        for name, frame in frames.items():
            if frame is not None:
                names = {column: column.strip().lower() for column in frame.collect_schema().names()}
                frame.rename(names).sink_parquet(work / f"{name}.parquet")
        ledger = ingest(work, folder, format="own-tables", shards=shards, workers=workers, options=options,
                        common=common, announce=announce)  # fmt: skip
    for line in summary(ledger, read_source(folder)):
        announce(line)
    return ledger


def lazy_table(name: str, table: Any, faults: list[str]) -> pl.LazyFrame | None:
    """The table as polars has it; where that cannot be, None, and why, without any value of it, among the faults."""
    if isinstance(table, pl.LazyFrame):
        return table
    if not isinstance(table, pl.DataFrame):
        if not hasattr(table, "__arrow_c_stream__"):
            faults.append(f"{name}: is {type(table).__name__}, no table of polars, pandas (from 2.2 on) or Arrow")
            return None
        try:
            table = pl.DataFrame(table)
        except Exception:  # Arrow's own words may quote what stands in a cell
            faults += [f"{name}: {words}" for words in _unlike(table)]
            return None
    return table.lazy().select(pl.exclude(rf"^{_INDEX}\d+__$"))


def _unlike(table: Any) -> list[str]:
    """Of a table that Arrow cannot take, the columns that are to blame, in words."""
    unlike = "values of unlike types, or of one that Arrow does not have"
    if not hasattr(table, "iloc"):  # pandas alone has columns without a type
        return [f"a column holds {unlike}; make each column one type"]
    names = [masked(str(name)) for name in table.columns]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        return [f"column {name} is there more than once" for name in twice]
    return [
        f"column {name} holds {unlike}; make it one type"
        for place, name in enumerate(names)
        if not _is_arrow(table.iloc[:, [place]])
    ]


def _is_arrow(table: Any) -> bool:
    try:
        pl.DataFrame(table)
    except Exception:  # as above
        return False
    return True


def _column_faults(name: str, columns: list[str], has_dates: bool) -> list[str]:
    """What is missing, there twice or of no meaning, in words."""
    lower, known = [column.strip().lower() for column in columns], columns_of(name)
    needed = (*NEEDED[name], *["admit_time" if has_dates else "order"] * (name == "visits"))
    faults = [f"{name}: column {column} is missing" for column in needed if column not in lower]
    faults += [f"{name}: column {column} is there more than once" for column in known if lower.count(column) > 1]
    for column in sorted(set(lower) - set(known)):
        near = difflib.get_close_matches(column, set(known) - set(lower), 1)
        faults.append(f"{name}: column {masked(column)} has no meaning here" + "".join(f" ({one}?)" for one in near))
    if not has_dates and name != "patients":
        dated = [column for column in _RAW[name].times if column in lower]
        faults += [f"{name}: column {column} is given although there are no dates" for column in dated]
    return faults
