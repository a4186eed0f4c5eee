"""Reader of the Medical Event Data Standard (MEDS 0.3 and 0.4): one long table of subject, time, code and value.

What a code means and what a visit is are not part of the standard; both are options here.
"""

from collections import Counter

import polars as pl

from medbert_jax.ingest.reader import RawTable, Reader, count_unknown, moment, number, text, whole
from medbert_jax.ingest.readers.med_bert_tsv import US_ICD, tell_version
from medbert_jax.ingest.readers.meds_codes import described_codes, meanings, titles
from medbert_jax.ingest.readers.meds_options import CODE_TABLES, MedsOptions
from medbert_jax.ingest.readers.meds_patients import deaths_of, patients_of, split_faults, with_splits
from medbert_jax.ingest.readers.meds_visits import (
    OUTSIDE,
    STAY,
    VISIT_COLUMNS,
    VISITS,
    WITHIN,
    day_visits,
    linked,
    marked_visits,
    on_such_days,
)
from medbert_jax.ingest.rough import Left, Rough
from medbert_jax.ingest.source_files import SourceError

_ORIGINS = {
    "drug": "medications", "measurement": "measurements", "procedure": "procedures", "observation": "none",
    "device": "none", "specimen": "none",
}  # fmt: skip
_TABLE = "Splits train, tuning, held_out of subject_splits are train, validation, test"
_NONE = "; a patient in two of its rows, or in a split of another name, has none."
_SPLITS = {
    "auto": f"{_TABLE}, and so are the folders of these names in which data lie, for subjects that it lacks{_NONE}",
    "table": f"{_TABLE}{_NONE}",
    "folders": "The folders train, tuning, held_out in which data lie are the splits train, validation, test.",
    "none": "The splits of the source are not taken.",
}


def _build(raw: dict[str, pl.DataFrame], options: MedsOptions) -> Rough:
    data = raw["data"]
    data = data.select(
        patient_id="subject_id",
        untimed=data["time"].is_null(),
        time=moment(data["time"]),
        end=moment(data["end"]),
        code=text(data["code"]),
        number=number(data["numeric_value"]),
        unit=text(data["unit"]),
        priority=whole(data["seq_num"]),
        race=text(data["race"]),
        named=pl.coalesce(text(data[column]) for column in VISIT_COLUMNS),
        origin=pl.coalesce(text(data["table"]), text(data["omop_table"])),
    )
    described = described_codes(raw.get("codes"))
    meant = meanings(data["code"], described, options)
    rows = data.join(meant, on="code", how="left")
    # A row without a code is a diagnosis without one: it is counted there.
    rows = rows.with_columns(role=pl.when(pl.col("code").is_null()).then(pl.lit("diagnoses")).otherwise("role"))
    # SNOMED has codes of all kinds; some datasets keep the name of the OMOP table.
    of_origin = pl.col("origin").str.to_lowercase().str.extract(f"^({'|'.join(_ORIGINS)})").replace_strict(_ORIGINS)
    snomed = (pl.col("system") == "SNOMED") & of_origin.is_not_null()
    rows = rows.with_columns(role=pl.when(snomed).then(of_origin).otherwise("role"))

    for role, mark in (("birth", "MEDS_BIRTH"), ("death", "MEDS_DEATH")):
        count_unknown(f"time of {mark}", rows.filter((pl.col("role") == role) & pl.col("untimed")).height)
    visits = marked_visits(rows, options)
    codes = linked(rows.filter(pl.col("role").is_in(CODE_TABLES)), visits, options)
    codes = codes.select(
        "patient_id", "visit_id", "time", "role", "priority", code_system="system", code="value", number="number",
        unit=pl.coalesce("unit", "unit_in_code").replace("UNK", None),
    )  # fmt: skip
    of = {name: codes.filter(pl.col("role") == name) for name in CODE_TABLES}
    left = [Left("unknown_pattern", "Rows whose code no pattern of the options knows",
                 codes=rows.filter(pl.col("role").is_null()).height),
            Left("other_table", "SNOMED codes of the tables observation, device_exposure or specimen: no diagnoses",
                 codes=rows.filter(pl.col("role") == "none").height)]  # fmt: skip
    if options.us_icd:
        ends = visits.group_by("patient_id", "visit_id").agg(pl.col("discharge_time").max())
        dated = of["diagnoses"].join(ends, on=["patient_id", "visit_id"], how="left")
        of["diagnoses"], undecided = tell_version(dated, pl.coalesce("discharge_time", "time"))
        left.append(undecided)
    days = day_visits(of)
    of = {name: on_such_days(table, days) for name, table in of.items()}
    event = ["patient_id", "visit_id", "time", "code_system", "code"]
    came = visits.select("patient_id", "visit_id").unique()
    by_stay = came.filter(pl.col("visit_id").str.starts_with(STAY)).height
    patients, unlike = patients_of(rows, options)
    patients, told = with_splits(
        patients,
        raw["data"].select("folder", patient_id="subject_id"),
        raw.get("subject_splits"),
        options,
    )
    told |= unlike | {"visits by id": came.height - by_stay, "visits by stay": by_stay, "visits by day": days.height}
    told["rows read as the parent of their code (codes.parquet)"] = rows.filter(pl.col("parents") == 1).height
    told["rows whose code has parents of several meanings, which stay as they are"] = rows.filter(
        pl.col("parents") > 1
    ).height
    return Rough(
        patients=patients,
        visits=pl.concat([visits, days], how="diagonal"),
        diagnoses=of["diagnoses"].select("patient_id", "visit_id", "code_system", "code", "priority", "time"),
        medications=of["medications"].select(event),
        measurements=of["measurements"].select(*event, "unit", value="number"),
        procedures=of["procedures"].select(event),
        deaths=deaths_of(rows),
        has_dates=True,
        age_precision="year" if options.birth_year_only else "day",
        assumptions=_assumptions(options),
        left=tuple(left),
        told=+told,
        unknown_codes=_unknown(rows, described),
        titles=titles(meant, described),
        other_ids=raw["subject_splits"]["subject_id"] if "subject_splits" in raw else pl.Series(dtype=pl.String),
    )


def _assumptions(options: MedsOptions) -> tuple[str, ...]:
    return (
        VISITS[options.visits],
        *[WITHIN] * (options.visits in ("auto", "events")),
        *[OUTSIDE[options.outside]] * (options.visits != "day"),
        "Admission of a visit is its admission event, else its first event; discharge is its discharge event, else the "
        "column end of its admission, else unknown.",
        "A discharge event makes no visit: without an admission before it, it says nothing.",
        "Birth is MEDS_BIRTH, death MEDS_DEATH, of a subject without them another code of these"
        + (", and only the year of birth is taken." if options.birth_year_only else ", to the day."),
        "Sex and race are the latest that are given; birth is unknown where rows contradict each other; of several "
        "days of death the earliest counts.",
        _SPLITS[options.splits],
        "Priority is the column seq_num; present on admission and captured at billing are unknown.",
        *[US_ICD] * options.us_icd,
        "SNOMED codes are diagnoses unless the column table or omop_table names drugs, measurements or procedures; "
        "those of observations, devices and specimens leave under other_table.",
        *[
            "Codes that no pattern knows, and those of the site alone, are what parent_codes of codes.parquet say they "
            "are, where these say one thing; other codes come before those of SNOMED."
        ]
        * options.parent_codes,
        "Not read: text_value.",
    )


def _unknown(rows: pl.DataFrame, described: pl.DataFrame | None) -> pl.DataFrame:
    """The codes that nobody knows, with description, rows and subjects."""
    found = (
        rows.filter(pl.col("role").is_null())
        .group_by("code")
        .agg(rows=pl.len(), patients=pl.col("patient_id").n_unique())
    )
    if described is None:
        return found.with_columns(description=pl.lit(None, pl.String))
    return found.join(described.select("code", "description").unique("code", keep="first"), on="code", how="left")


def _check(told: Counter[str], options: MedsOptions) -> tuple[str, ...]:
    """Raise SourceError where visits are to be those of a column that says none, and for splits unlike each other."""
    if faults := split_faults(told):
        raise SourceError("meds", faults)
    if options.visits == "column" and not told["visits by id"]:
        names = ", ".join(VISIT_COLUMNS)
        what = f"--options.visits column needs values in a column {names}, and there are none (try auto, events or day)"
        raise SourceError("meds", [("data", "missing_column", what)])
    return ()


_COLUMNS = ("numeric_value", *VISIT_COLUMNS, "end", "unit", "seq_num", "race", "table", "omop_table")
MEDS = Reader(
    "meds",
    (
        RawTable(
            "data",
            "subject_id",
            ("subject_id", "time", "code"),
            _COLUMNS,
            files=("data/**/*.parquet",),
            times=("time", "end"),
            codes=("code",),
            folder="folder",
        ),
        RawTable(
            "codes",
            "",
            ("code",),
            ("description", "parent_codes"),
            needed=False,
            files=("metadata/codes.parquet",),
            key="code",
        ),
        RawTable(
            "subject_splits",
            "subject_id",
            ("subject_id", "split"),
            needed=False,
            files=("metadata/subject_splits.parquet",),
        ),
    ),
    _build,
    MedsOptions,
    _check,
)
