"""The hospital of `made_sources` in the other formats and layouts that are read, some with options of their reader.

Tables of one's own with times of follow-up, both kinds of pickles, OMOP with observation periods, OMOP as a spreadsheet
of another country leaves it, MEDS of which folders alone say the splits, MIMIC-IV whose codes have lost their zeros.
`WRITERS` are all of them and those of `made_sources`; `OPTIONS` what a reader must be told of some.
"""

import pickle
from collections.abc import Callable
from datetime import date
from pathlib import Path

import polars as pl
from sources import made_sources
from sources.made_sources import CODES, MEDS_SPLIT, PATIENTS, VISITS, altered, csv, frame, parquet, put

from medbert_jax.ingest.reader import SourceOptions
from medbert_jax.ingest.readers.omop_options import OmopOptions
from medbert_jax.ingest.readers.pytorch_ehr import PytorchEhrOptions

ENROLLED = tuple((patient, date(2008, 1, 1), date(2010, 12, 31)) for patient, *_ in PATIENTS[:8])
"""Patient, first and last day, in the layouts that say who is followed; nobody else is."""


def _own_tables() -> dict[str, pl.DataFrame]:
    split = {"train": "train", "tuning": "validation", "held_out": "test"}
    return {
        "patients": frame(
            "patient_id sex birth_date race death_date split",
            [(id, sex, str(birth), race, death and str(death), split[MEDS_SPLIT[id]])
             for id, birth, sex, race, death in PATIENTS],
        ),
        "visits": frame(
            "visit_id patient_id admit_time discharge_time visit_type",
            [(visit, id, admit, discharge, kind) for visit, id, admit, discharge, _, kind, *_ in VISITS],
        ),
        "diagnoses": frame(
            "patient_id visit_id code_system code priority",
            [(id, visit, system, code, str(rank)) for visit, id, system, code, rank in CODES],
        ),
        "follow_up": frame("patient_id start end", [(id, str(start), str(end)) for id, start, end in ENROLLED]),
    }  # fmt: skip


def write_own_tables(folder: Path, change=None, files=None) -> Path:
    """CSV but for the diagnoses, which are a folder of Parquet parts."""
    tables = altered(_own_tables(), change)
    diagnoses = tables.pop("diagnoses")
    content = {f"{name}.csv": csv(table) for name, table in tables.items()}
    content |= {f"diagnoses/part-{n}.parquet": parquet(diagnoses[n::2]) for n in range(2)}
    return put(folder, content, files)


def _rows_of_pickles(change) -> tuple[dict[str, int], dict[str, dict[str, list[int]]]]:
    """Number of each code as it is written; patient → visit → numbers; `change` gets the rows that they come from."""
    columns = "patient_id visit_id diag diagnosis_priority"
    rows = [(id, visit, f"{system.replace('CM', '')}_{code}", str(rank)) for visit, id, system, code, rank in CODES]
    data = altered({"data_file": frame(columns, rows)}, change)["data_file"]
    types = {name: number for number, name in enumerate(sorted(set(data["diag"])), 1)}
    people: dict[str, dict[str, list[int]]] = {}
    for id, visit, code, _ in data.sort("visit_id", "diagnosis_priority").rows():
        people.setdefault(id, {}).setdefault(visit, []).append(types[code])
    return {"empty_pad": 0} | types, people


def _put_pickles(folder: Path, name: str, types: dict, records: dict[str, list], files) -> Path:
    ending = {"train": "train", "tuning": "valid", "held_out": "test"}
    content = {"data.types": pickle.dumps(types, -1)}
    for split, last in ending.items():
        here = [record for id, record in records.items() if MEDS_SPLIT[id] == split]
        content[f"data.{name}.{last}"] = pickle.dumps(here, -1)
    return put(folder, content, files)


def write_med_bert_pickles(folder: Path, change=None, files=None) -> Path:
    """`.types` and `.bencs` of the three splits; only visits with codes can be told, in order and without days."""
    types, people = _rows_of_pickles(change)
    stay = {visit: days for visit, _, _, _, days, *_ in VISITS}
    records = {}
    for id, visits in people.items():
        numbers = [number for number, codes in enumerate(visits.values(), 1) for _ in codes]
        codes = [code for codes in visits.values() for code in codes]
        days = [*[90] * (len(visits) - 1), 0]
        records[id] = [id, [stay[visit] for visit in visits], days, codes, numbers]
    return _put_pickles(folder, "bencs", types, records, files)


def write_pytorch_ehr(folder: Path, change=None, files=None) -> Path:
    """`.types` and `.combined` of the three splits, the newest visit first, as the released script writes."""
    types, people = _rows_of_pickles(change)
    records = {id: [id, 0, [[[30], codes] for codes in reversed(visits.values())]] for id, visits in people.items()}
    return _put_pickles(folder, "combined", types, records, files)


def write_omop_observed(folder: Path, change=None, files=None) -> Path:
    """CDM 5.4 with observation periods; one of them in two parts that meet."""
    periods = [(str(number), id, str(start), str(end), "32817") for number, (id, start, end) in enumerate(ENROLLED)]
    number, id, start, end, kind = periods.pop()
    periods += [(number, id, start, "2009-05-05", kind), ("99", id, "2009-05-06", end, kind)]
    columns = "observation_period_id person_id observation_period_start_date observation_period_end_date"

    def with_periods(tables):
        tables["observation_period"] = frame(f"{columns} period_type_concept_id", periods)
        if change:
            change(tables)

    return made_sources.write_omop_csv(folder, with_periods, files)


def write_omop_spreadsheet(folder: Path, change=None, files=None) -> Path:
    """CDM 5.4 that went through a spreadsheet: semicolons, days as 11.02.2008, ids as 77310001.0, NULL for nothing."""
    tables = altered(made_sources.omop_tables("5.4"), change)
    numbers = {"person_id", "visit_occurrence_id"}
    spelt = {"_datetime": ("%Y-%m-%d %H:%M:%S", "%d.%m.%Y %H:%M"), "_date": ("%Y-%m-%d", "%d.%m.%Y")}
    content = {}
    for name, table in tables.items():
        changed = [pl.col(column) + ".0" for column in table.columns if column in numbers]
        for ending, (was, becomes) in spelt.items():
            columns = [column for column in table.columns if column.endswith(ending) and name != "concept"]
            changed += [pl.col(column).str.to_datetime(was).dt.to_string(becomes) for column in columns]
        content[f"{name}.csv"] = csv(table.with_columns(changed).with_columns(pl.all().fill_null("NULL")), ";")
    return put(folder, content, files)


def write_meds_folders(folder: Path, change=None, files=None) -> Path:
    """MEDS 0.4 without metadata/subject_splits: the folders are the splits."""

    def without_splits(tables):
        del tables["splits"]
        if change:
            change(tables)

    return made_sources.write_meds_04(folder, without_splits, files)


def write_mimic_without_zeros(folder: Path, change=None, files=None) -> Path:
    """hosp/*.csv whose codes a program took for numbers, but for one that had several readings without its zero."""
    tables = made_sources.mimic_tables()
    lost = pl.when(pl.col("icd_code") != "04111").then(pl.col("icd_code").str.strip_chars_start("0"))
    for name in ("diagnoses_icd", "d_icd_diagnoses"):
        tables[name] = tables[name].with_columns(icd_code=lost.otherwise("icd_code"))
    tables = altered(tables, change)
    return put(folder, {f"hosp/{name}.csv": csv(table) for name, table in tables.items()}, files)


WRITERS: dict[str, tuple[str, Callable]] = made_sources.WRITERS | {
    "omop-observed": ("omop", write_omop_observed),
    "omop-spreadsheet": ("omop", write_omop_spreadsheet),
    "meds-folders": ("meds", write_meds_folders),
    "mimic-iv-zeros": ("mimic-iv", write_mimic_without_zeros),
    "own-tables": ("own-tables", write_own_tables),
    "med-bert-pickles": ("med-bert-pickles", write_med_bert_pickles),
    "pytorch-ehr": ("pytorch-ehr", write_pytorch_ehr),
}
OPTIONS: dict[str, SourceOptions] = {
    "omop-spreadsheet": OmopOptions(date_format=("%d.%m.%Y %H:%M", "%d.%m.%Y"), whole_ids=True),
    "mimic-iv-zeros": SourceOptions(icd9_zeros="restore"),
    "pytorch-ehr": PytorchEhrOptions("newest-first"),
}
"""Where the reader has to be told something."""


def write_source(kind: str, folder: Path, change=None, files=None) -> tuple[Path, str, SourceOptions | None]:
    """The source's folder, its format and what its reader must be told."""
    name, writer = WRITERS[kind]
    return writer(folder, change, files), name, OPTIONS.get(kind)
