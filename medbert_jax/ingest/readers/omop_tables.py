"""Tables of OMOP → rough EHR tables, one by one.

Numbers of concepts are those of the OHDSI vocabularies (athena.ohdsi.org).
"""

from collections import Counter

import polars as pl

from medbert_jax.ingest.ends import no_end
from medbert_jax.ingest.reader import count_unknown, day, moment, named, number, text, whole
from medbert_jax.ingest.readers.omop_codes import codes_of, with_icd
from medbert_jax.ingest.readers.omop_concepts import look_up
from medbert_jax.ingest.readers.omop_options import OmopOptions

_VISIT_TYPES = {
    **dict.fromkeys((9201, 262, 8717, 32037, 581379), "inpatient"),  # 262 with emergency room; intensive care
    **dict.fromkeys((9203, 8870, 581381), "emergency"),
    **dict.fromkeys((9202, 581477, 5083, 8756, 8940, 38004207), "outpatient"),  # office, telehealth, clinic
}
# The places of service that CDM 5.3 names, the visit concepts of 5.4, and PCORnet's list, which PEDSnet documents.
_STILL_PATIENT = 32220
_DISPOSITIONS = {
    **dict.fromkeys((8536, 581476, 38004195, 44814695, 44814696), "home"),
    **dict.fromkeys(
        (8717, 8863, 8676, 8920, 8970, 8971, 8827, 8615, 8976, 9201, 42898160, 38004205, 38004279, 38004284,
         38004301, 44814690, 44814691, 44814698, 44814699, 44814700, 44814701, 44814703), "facility",
    ),
    **dict.fromkeys((4216643, 434489, 44814686, 44814694), "expired"),
    **dict.fromkeys((8546, 44814697), "hospice"),
    **dict.fromkeys((4021968, 44814692, 44814693, 8844), "other"),  # against advice, absent without leave
}  # fmt: skip
# Vocabulary "Condition Status": admission, primary and secondary admission diagnosis; 4203942 is 5.3's SNOMED concept.
_ON_ADMISSION = (32890, 32901, 32907, 4203942)
_PRIMARY, _SECONDARY = (32901, 32902, 32903), (32907, 32908, 32909)
# The older vocabulary "Condition Type" has "primary" beside 15 numbered positions of inpatient and outpatient detail
# and header, inpatient positions 16–20, and the positions of carrier claims. "1st position" is 1 like "primary": ETLs
# use either for the principal diagnosis (MIMIC's the 1st position, MarketScan's both).
_POSITIONS = (
    {38000183: 1, 38000199: 1, 44786627: 1, 44786628: 1, 44786629: 2}
    | {first + n: n + 1 for first in (38000184, 38000200, 38000215, 38000230) for n in range(15)}
    | {44818709 + n: n + 16 for n in range(5)}
    | {first + n: n + 1 for first, places in ((45756835, 8), (45756843, 13)) for n in range(places)}
)
_NO_SEX = ("0", "8551", "8570", "8521", "44814649", "44814650", "44814653")  # unknown, ambiguous, other, no information
_UNKNOWN = ("0", "none", "null", "unknown", "no matching concept")


def patients_of(person: pl.DataFrame, concepts: pl.DataFrame) -> pl.DataFrame:
    """Rows of person; of birth the day, else the year."""
    year, month, of_month = (whole(person[f"{part}_of_birth"]) for part in ("year", "month", "day"))
    patients = pl.DataFrame(
        {
            "patient_id": text(person["person_id"]),
            "stated": day(person["birth_datetime"]),
            "year": year,
            "month": month,
            "day": of_month,
            "sex": named(person["gender_concept_id"], {"8507": "male", "8532": "female"}, _NO_SEX),
            "race": look_up(person["race_concept_id"], concepts, "name")[0],
            "race_text": text(person["race_source_value"]),
        }
    )
    parts = (pl.col(part).cast(pl.String).str.zfill(width) for part, width in (("year", 4), ("month", 2), ("day", 2)))
    written = pl.concat_str(parts, separator="-").str.to_date("%Y-%m-%d", strict=False)
    parted = pl.any_horizontal(
        (getattr(pl.col("stated").dt, part)() != pl.col(part)).fill_null(False) for part in ("year", "month", "day")
    )
    against = patients.select(parted).to_series()
    count_unknown("birth_datetime against year, month or day of birth", int(against.sum()))
    patients = patients.with_columns(stated=patients["stated"].set(against, None), written=written)
    whole_day = pl.all_horizontal(pl.col("year", "month", "day").is_not_null())
    no_day = patients.select((whole_day & pl.col("written").is_null() & pl.col("stated").is_null()).sum()).item()
    count_unknown("year, month and day of birth that are no day", int(no_day))
    stand_in = (pl.col("stated").dt.month() == 6) & (pl.col("stated").dt.day() == 15)
    stand_in &= pl.col("month").is_null() & pl.col("day").is_null()
    known = (pl.when(~pl.col(race).str.to_lowercase().is_in(_UNKNOWN)).then(race) for race in ("race", "race_text"))
    return patients.select(
        "patient_id",
        pl.coalesce(pl.when(~stand_in).then("stated"), "written").alias("birth_date"),
        pl.coalesce("year", pl.col("stated").dt.year()).alias("birth_year"),
        "sex",
        pl.coalesce(known).alias("race"),
    ).with_columns(pl.when(pl.col("birth_date").is_null()).then("birth_year"))


def deaths_of(table: pl.DataFrame | None) -> pl.DataFrame:
    """patient_id, death_date, death_time of each row; empty where the source has no such table."""
    if table is None:
        return pl.DataFrame(schema={"patient_id": pl.String, "death_date": pl.Date, "death_time": pl.Datetime("us")})
    time = _time(table, "death")
    return pl.DataFrame({"patient_id": text(table["person_id"]), "death_date": time.dt.date(), "death_time": time})


def follow_up_of(table: pl.DataFrame | None) -> pl.DataFrame | None:
    """Rows of observation_period; None where the source has no such table."""
    if table is None:
        return None
    first, last = (day(table[f"observation_period_{end}_date"]) for end in ("start", "end"))
    return pl.DataFrame({"patient_id": text(table["person_id"]), "start": first, "end": last})


def visits_of(table: pl.DataFrame, concepts: pl.DataFrame) -> pl.DataFrame:
    """Rows of visit_occurrence."""
    kind, went = whole(table["visit_concept_id"]), whole(table["discharged_to_concept_id"])
    went = went.zip_with((went > 0).fill_null(False), whole(table["discharge_to_concept_id"]))
    name = look_up(went, concepts, "name")[0]
    return pl.DataFrame(
        {
            "visit_id": text(table["visit_occurrence_id"]),
            "patient_id": text(table["person_id"]),
            "admit_time": _time(table, "visit_start"),
            "discharge_time": _time(table, "visit_end"),
            "visit_type": kind.set(kind == 0, None).replace_strict(
                {None: None, **_VISIT_TYPES}, default="other", return_dtype=pl.String
            ),
            "discharge_disposition": went.replace_strict(_DISPOSITIONS, default=None, return_dtype=pl.String),
            "still_patient": (went == _STILL_PATIENT) | name.str.contains("(?i)^still (?:a )?patient").fill_null(False),
        }
    )


def diagnoses_of(
    table: pl.DataFrame,
    visits: pl.DataFrame,
    concepts: pl.DataFrame,
    mapped: pl.DataFrame,
    options: OmopOptions,
    told: Counter[str],
) -> pl.DataFrame:
    """Rows of condition_occurrence; SNOMED codes that are read as ICD are counted in `told`."""
    status = whole(table["condition_status_concept_id"])
    position = whole(table["condition_type_concept_id"]).replace_strict(_POSITIONS, default=None, return_dtype=pl.Int32)
    link = pl.DataFrame({"patient_id": text(table["person_id"]), "visit_id": _link(table["visit_occurrence_id"])})
    time, days = _time(table, "condition_start"), None
    if options.us_icd:
        known = visits.filter(~no_end())
        ends = known.group_by(link.columns).agg(pl.col("discharge_time").max())
        days = link.join(ends, on=link.columns, how="left", maintain_order="left")["discharge_time"]
        days = days.zip_with(days.is_not_null(), time)
    codes = pl.DataFrame(codes_of(table, "condition", concepts, options.source_value_system, days))
    if options.icd_from_snomed:
        codes = with_icd(codes, table["condition_concept_id"], mapped, options.icd_from_snomed, told)
    rows = pl.DataFrame({**link.to_dict(), "time": time, **codes.to_dict(), "status": status, "position": position})
    return rows.select(
        "patient_id", "visit_id", "time", "code_system", "code",
        pl.when(pl.col("status").is_in(_ON_ADMISSION)).then(True).alias("present_on_admission"),
        pl.when(pl.col("status").is_in(_PRIMARY)).then(1)
        .when(pl.col("position").is_not_null()).then("position")
        .when(pl.col("status").is_in(_SECONDARY)).then(2)
        .cast(pl.Int32).alias("priority"),
    )  # fmt: skip


def events_of(table: pl.DataFrame | None, kind: str, start: str, concepts: pl.DataFrame) -> pl.DataFrame | None:
    """Rows of medications, measurements or procedures; None where the source has no such table."""
    if table is None:
        return None
    columns = {
        "patient_id": text(table["person_id"]),
        "visit_id": _link(table["visit_occurrence_id"]),
        "time": _time(table, start),
        **codes_of(table, kind, concepts),
    }
    if kind == "drug":
        name, system, level = look_up(table["drug_concept_id"], concepts, "name", "system", "class")
        is_ingredient = (level == "Ingredient") & system.str.starts_with("RxNorm")
        columns["ingredient"] = name.set(~is_ingredient.fill_null(False), None)
    elif kind == "measurement":
        unit = text(table["unit_source_value"])
        columns["value"] = number(table["value_as_number"])
        columns["unit"] = unit.zip_with(unit.is_not_null(), look_up(table["unit_concept_id"], concepts, "code")[0])
    return pl.DataFrame(columns)


def _time(table: pl.DataFrame, start: str) -> pl.Series:
    """The time of {start}_datetime, else midnight of {start}_date: so too where the two are of different days."""
    exact, date = moment(table[f"{start}_datetime"]), moment(table[f"{start}_date"])
    against = (exact.dt.date() != date.dt.date()).fill_null(False)
    count_unknown(f"{start}_datetime of another day than {start}_date", int(against.sum()))
    return exact.zip_with(exact.is_not_null() & ~against, date)


def _link(values: pl.Series) -> pl.Series:
    """The visit a row names; 0 is none."""
    ids = text(values)
    return ids.set(ids == "0", None)
