"""Reader of the OMOP Common Data Model, versions 5.3 and 5.4 (ohdsi.github.io/CommonDataModel).

Tables and columns as documented there, CSV or Parquet; of `concept` only the rows that a shard's ids name are used.
Numbers of concepts below are those of the OHDSI vocabularies (athena.ohdsi.org).
"""

import functools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from medbert_jax.ehr.codes import CODE_SYSTEMS, EITHER, SOURCE, guess_icd_version, system_name
from medbert_jax.ehr.icd import ICD10_SYSTEMS, billable_icd9
from medbert_jax.ingest.assembly import Left, Rough
from medbert_jax.ingest.distinct import by_distinct
from medbert_jax.ingest.ends import no_end
from medbert_jax.ingest.linking import WORDS, Unlinked
from medbert_jax.ingest.reader import (
    RawTable,
    Reader,
    SourceOptions,
    count_unknown,
    day,
    moment,
    named,
    number,
    text,
    whole,
)


@dataclass(frozen=True)
class OmopOptions(SourceOptions):
    """How conditions are read where the tables leave a choice."""

    source_value_system: str = ""
    """Code system of condition_source_value (ICD10CM, ICD10GM, KCD7, …; LOCAL for codes of the site's own), used for
    rows without an ICD source concept, before the standard concept, where the text looks like a code of it. Empty: only
    texts that name their system ("ICD10CM:E11.9") are used; rows with other texts that look like a code, and without a
    concept, leave under unnamed_system."""
    unlinked: Unlinked = "by_date"
    """Conditions without visit_occurrence_id, or with one that no visit has: given to the patient's visit of their day;
    where there is none, to a visit made of that day; or left out (and counted)."""
    us_icd: bool = False
    """Whether condition_source_value of rows without an ICD source concept is an ICD code of a US site whose version
    nobody says: read as ICD-9-CM or ICD-10-CM, before the standard concept, by its shape and, where both have such a
    code (V27.0), by the visit's end or condition_start_date, which must then be of a real calendar. Not together with
    source_value_system."""
    icd_from_snomed: str = ""
    """ICD (ICD10CM, ICD9CM, ICD10GM, …) that diagnoses get in place of their SNOMED code where concept_relationship
    maps one code of that ICD to it ("Maps to"), or several that all fall under one of them. Where the codes part, and
    where an ICD code maps to more than the one SNOMED code, the diagnosis stays as it is. Empty: all stay."""

    def __post_init__(self):
        """Check every field, all faults in one error; and write the code system as the tables do."""
        super().__post_init__()
        for name in ("source_value_system", "icd_from_snomed"):
            object.__setattr__(self, name, self._system(name) or "")

    def _system(self, name: str) -> str | None:
        return pl.select(system_name(pl.lit(getattr(self, name)))).item()

    def _faults(self) -> Iterator[str]:
        yield from super()._faults()
        if self.us_icd and self.source_value_system:
            yield (
                "condition_source_value is of one system, or of a US version that its shape and day tell: got "
                f"source_value_system {self.source_value_system} and us_icd; leave one of them"
            )
        if self.icd_from_snomed and not re.match(_ICD, self._system("icd_from_snomed") or ""):
            yield (
                f"icd_from_snomed must be an ICD of diagnoses: got {self.icd_from_snomed}; use ICD10CM, ICD9CM, ICD10, "
                "or that of a country (ICD10GM)"
            )
        if self.source_value_system and not self._system("source_value_system"):
            known = ", ".join(("ICD10", "ICD10CM", "ICD10GM (and other countries)", "CIM10", "KCD8", *CODE_SYSTEMS))
            yield (
                f"source_value_system must be a code system that is known: got {self.source_value_system}; "
                f"use LOCAL for codes of the site's own, or one of {known}"
            )


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
_ICD = f"^(?:ICD9CM|{ICD10_SYSTEMS})$"
_MARKED = "[A-Za-z0-9.+*!†–-]"  # with the marks that countries put behind their ICD-10
_NAMED_SYSTEM = (
    r"(?i)^(ICD-?9(?:-?CM)?|ICD-?10(?:-?[A-Z]{2})?|CIM-?10|KCD-?\d|SNOMED(?:-?CT)?)(?:\s*[:/|_^]+\s*|\s+)"
    + f"({_MARKED}{{1,20}})$"
)
_SNOMED = r"^\d{6,18}$"
# E11.9, E119, I10, V45.81, E849.0, 428.0; of digits alone only what ICD-9-CM has.
_ICD_SHAPE = r"(?i)^(?:[A-Z]\d[0-9A-Z](?:\.?[0-9A-Z]{1,4})?|E\d{3}\.\d|\d{3}\.\d{1,2})$"
_UNREAD, _UNREAD_ICD = "source values without an ICD concept", "source values without an ICD concept that look like ICD"
# A word of a code's signs and length with a digit in it. All other text may say anything about anyone: never a code.
_CODE_SIGNS, _DIGIT = r"^[A-Za-z0-9.-]{1,20}$", r"\d"
# Days, telephone numbers, numbers of persons: what looks like them is no code of a system whose codes have no shape.
_NUMBERS = r"^\d+(?:[.-]\d+){2,}$|^\d{3}-\d{4}$|^(?:19|20)\d{6}$|^\d{9,}$"
_NO_SEX = ("0", "8551", "8570", "8521", "44814649", "44814650", "44814653")  # unknown, ambiguous, other, no information
_UNKNOWN = ("0", "none", "null", "unknown", "no matching concept")
_LOOKED_UP = (
    "concept_id_1",
    "race_concept_id",
    "discharged_to_concept_id",
    "discharge_to_concept_id",
    "unit_concept_id",
    *(f"{kind}_concept_id" for kind in ("condition", "drug", "measurement", "procedure")),
    *(f"{kind}_source_concept_id" for kind in ("condition", "drug", "measurement", "procedure")),
)

ASSUMPTIONS = (
    "A visit is a row of visit_occurrence, from visit_start_datetime to visit_end_datetime, or the dates where these "
    "are not given or of another day: the CDM requires the date, so it holds, from midnight, and the time is counted; "
    "the times of drugs, measurements and procedures likewise.",
    "Visit concepts 9201, 262, 8717, 32037, 581379 are inpatient, 9203, 8870, 581381 emergency, "
    "9202, 581477, 5083, 8756, 8940, 38004207 outpatient, 0 unknown, all others other; visit_detail is not read.",
    "Diagnoses are the rows of condition_occurrence alone. ICD codes that the mapping puts into other domains "
    "(observation, procedure, measurement: many Z codes) are not there.",
    "A diagnosis' code is that of condition_source_concept_id if it is of an ICD, else condition_source_value where it "
    "names its system or the option source_value_system does, else that of the standard concept, else that of the "
    "other source concept, else none: the row leaves, under unnamed_system where its source value looks like a code. "
    "ICD9 in a source value is ICD-9-CM, ICD10 is that of WHO. The system is the concept's "
    "vocabulary_id; concept id 0 is unmapped. A source code that maps to several standard concepts is several rows "
    "there and one diagnosis here.",
    "Source values are taken only where they look like a code: up to 20 letters, digits, dots and dashes, at least one "
    "digit and no blank, and of the shape that the system's codes have; those of systems without a shape never where "
    "they look like a day, a telephone number or a number of nine digits. Other text is never a code; its row is "
    "without one.",
    "Priority is 1 for a primary status (32901, 32902, 32903), else the position that the condition type says, "
    "else 2 for a secondary status (32907, 32908, 32909). Present on admission is true for admission diagnoses "
    "(32890, 32901, 32907, 4203942) and otherwise unknown; captured at billing is unknown.",
    "The birth date is birth_datetime, else year, month and day where all are given, else only the year is known. A "
    "birth_datetime that contradicts a year, month or day beside it is not taken, and counted. A "
    "birth_datetime of 15 June without month and day is the CDM's stand-in for a known year and is read as that.",
    "Sex is 8507 male, 8532 female, others unknown. Race is the name of race_concept_id, else race_source_value. "
    "Rows of death without a readable date say nothing, and are counted.",
    "Discharge dispositions are taken from discharged_to_concept_id (5.3: discharge_to_concept_id) where it is one of "
    "the usual places; 0 is unknown, although the CDM lets it stand for home too. The stay of who is still a patient "
    "(32220) is open.",
    "Medications and measurements have the code of the standard concept (RxNorm, LOINC), procedures that of the source "
    "concept; the other where this one says nothing; where neither does, source values that name their system alone. "
    "They are of the visit that the row names; without one their time stands alone.",
    "A medication's ingredient is known only where the drug concept itself is an RxNorm ingredient. A measurement's "
    "unit is unit_source_value, else the code of unit_concept_id.",
)
_US_ICD = (
    "condition_source_value without an ICD source concept is an ICD code of a US site: its shape tells ICD-9-CM from "
    "ICD-10-CM. Where both have such a code (V27.0), it is ICD-10-CM from 2015-10-01 on, by the end of its visit, else "
    "by condition_start_date; without a day before 2100 it stays undecided: the row has the code of its standard "
    "concept, or leaves under unnamed_system."
)
_FROM_SNOMED = (
    "A diagnosis that has the SNOMED code of its standard concept is read as the code of {0} that maps to it in "
    "concept_relationship, or under which all fall that do. Where they part, or say more than it, it stays SNOMED."
)
_NO_CONCEPTS = "There is no table concept: code systems are known only where condition_source_value tells them."
_PERIODS = (
    "Follow-up is observation_period, periods that overlap or meet as one: that a patient has no codes outside of them "
    "is no sign of health."
)


def _build(raw: dict[str, pl.DataFrame], options: OmopOptions) -> Rough:
    """EHR tables of one shard's raw rows, bad ones included."""
    concepts = _concepts(raw)
    visits = _visits(raw["visit_occurrence"], concepts)
    said = [WORDS[options.unlinked]]
    if options.source_value_system:
        said.append(f"condition_source_value is read as {options.source_value_system} where it has a code's shape.")
    said += [_US_ICD] * options.us_icd
    said += [_NO_CONCEPTS] * ("concept" not in raw) + [_PERIODS] * ("observation_period" in raw)
    if options.icd_from_snomed:
        said.append(_FROM_SNOMED.format(options.icd_from_snomed))
    told = _unread_icd(raw["condition_occurrence"], concepts, options)
    mapped = _icd_of_snomed(raw.get("concept_relationship"), concepts, options.icd_from_snomed)
    diagnoses = _diagnoses(raw["condition_occurrence"], visits, concepts, mapped, options, told)
    patients, deaths = _patients(raw["person"], concepts), _deaths(raw.get("death"))
    undated = deaths.filter(pl.col("death_date").is_null()).join(patients, on="patient_id", how="semi")
    return Rough(
        patients=patients,
        visits=visits,
        diagnoses=diagnoses,
        medications=_events(raw.get("drug_exposure"), "drug", "drug_exposure_start", concepts),
        measurements=_events(raw.get("measurement"), "measurement", "measurement", concepts),
        procedures=_events(raw.get("procedure_occurrence"), "procedure", "procedure", concepts),
        deaths=deaths,
        follow_up=_follow_up(raw.get("observation_period")),
        unlinked=options.unlinked,
        has_dates=True,
        age_precision="day or year",
        assumptions=(*ASSUMPTIONS, *said),
        left=(Left("unreadable_death", "Rows of death without a readable date; their patients stay", undated.height),),
        other_ids=deaths["patient_id"],
        told=told,
        titles=concepts.select("code", code_system="system", title="name"),
    )


def _unread_icd(table: pl.DataFrame, concepts: pl.DataFrame, options: OmopOptions) -> Counter[str]:
    """How many source values of conditions no option reads, and how many of these look like ICD."""
    if options.source_value_system or options.us_icd:
        return Counter()
    values = pl.DataFrame(
        {"value": text(table["condition_source_value"]), "concept_id": whole(table["condition_source_concept_id"])}
    )
    values = values.drop_nulls("value").group_by(pl.all()).len()
    if values.is_empty():
        return Counter()
    values = values.join(concepts.select("concept_id", "system"), on="concept_id", how="left")
    of_icd = pl.col("system").str.contains(_ICD).fill_null(False)
    values = values.filter(~of_icd & ~pl.col("value").str.contains(_NAMED_SYSTEM))
    looks = pl.col("value").str.contains(_ICD_SHAPE) | pl.col("value").is_in(list(billable_icd9("ICD9CM")))
    return Counter({_UNREAD: int(values["len"].sum()), _UNREAD_ICD: int(values.filter(looks)["len"].sum())})


def _check(told: Counter[str], options: OmopOptions) -> Iterator[str]:
    # A number of a site's own is one of ICD-9-CM in about one of seven.
    if told[_UNREAD_ICD] * 5 > told[_UNREAD]:
        yield (
            f"{told[_UNREAD_ICD]:,} of {told[_UNREAD]:,} source values look like ICD; see "
            "--options.source-value-system (or --options.us-icd): without it their diagnoses have the code of the "
            "standard concept, or none."
        )


def _icd_of_snomed(relations: pl.DataFrame | None, concepts: pl.DataFrame, system: str) -> pl.DataFrame:
    """SNOMED concept_id → `icd`, the one code of `system` that all which map to it fall under; null where they part."""
    if relations is None:
        return pl.DataFrame(schema={"concept_id": pl.Int64, "icd": pl.String})
    maps = pl.DataFrame(
        {
            "source": whole(relations["concept_id_1"]),
            "concept_id": whole(relations["concept_id_2"]),
            "invalid": text(relations["invalid_reason"]),
        }
    )
    maps = maps.filter(pl.col("invalid").is_null()).select("source", "concept_id").unique()
    # A code that maps to two says more than either of them.
    maps = maps.filter(pl.col("source").is_unique())
    systems = concepts.with_columns(system=system_name(pl.col("system")))
    maps = maps.join(systems.filter(system=system).select("code", source="concept_id"), on="source")
    maps = maps.join(systems.filter(system="SNOMED").select("concept_id"), on="concept_id", how="semi")
    shortest = pl.col("code").sort_by(pl.col("code").str.len_bytes(), "code").first()
    return maps.group_by("concept_id").agg(icd=pl.when(pl.col("code").str.starts_with(shortest).all()).then(shortest))


def _concepts(raw: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """concept_id Int64, system, code, name, class of the concepts that the shard's rows name, each once."""
    columns = {"system": "vocabulary_id", "code": "concept_code", "name": "concept_name", "class": "concept_class_id"}
    if "concept" not in raw:
        return pl.DataFrame(schema={"concept_id": pl.Int64, **dict.fromkeys(columns, pl.String)})
    ids = [
        whole(frame[column]).unique()
        for name, frame in raw.items()
        for column in frame.columns
        if name != "concept" and column in _LOOKED_UP
    ]
    table = raw["concept"]
    # Millions of rows: found by the type that they have, converted afterwards.
    dtype = table["concept_id"].dtype
    named = pl.concat([one.rename("concept_id") for one in ids]).unique().drop_nulls()
    # An id too large for that type is in no row of it.
    named = (
        named.filter(named > 0).cast(dtype if dtype.is_numeric() else pl.String, strict=False).drop_nulls().to_frame()
    )
    if not dtype.is_numeric():
        table = table.with_columns(text(table["concept_id"]))
    found = table.join(named, on="concept_id", how="semi")
    return pl.DataFrame(
        {"concept_id": whole(found["concept_id"]), **{new: text(found[old]) for new, old in columns.items()}}
    ).unique("concept_id", keep="first", maintain_order=True)


def _look_up(ids: pl.Series, concepts: pl.DataFrame, *columns: str) -> list[pl.Series]:
    """Columns of the concepts with these ids; null where unmapped or unknown."""
    keys = whole(ids).rename("concept_id").to_frame()
    return keys.join(concepts, on="concept_id", how="left", maintain_order="left").select(columns).get_columns()


def _patients(person: pl.DataFrame, concepts: pl.DataFrame) -> pl.DataFrame:
    year, month, of_month = (whole(person[f"{part}_of_birth"]) for part in ("year", "month", "day"))
    patients = pl.DataFrame(
        {
            "patient_id": text(person["person_id"]),
            "stated": day(person["birth_datetime"]),
            "year": year,
            "month": month,
            "day": of_month,
            "sex": named(person["gender_concept_id"], {"8507": "male", "8532": "female"}, _NO_SEX),
            "race": _look_up(person["race_concept_id"], concepts, "name")[0],
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


def _deaths(table: pl.DataFrame | None) -> pl.DataFrame:
    """patient_id, death_date, death_time of each row; empty where the source has no such table."""
    if table is None:
        return pl.DataFrame(schema={"patient_id": pl.String, "death_date": pl.Date, "death_time": pl.Datetime("us")})
    time = _time(table, "death")
    return pl.DataFrame({"patient_id": text(table["person_id"]), "death_date": time.dt.date(), "death_time": time})


def _follow_up(table: pl.DataFrame | None) -> pl.DataFrame | None:
    if table is None:
        return None
    first, last = (day(table[f"observation_period_{end}_date"]) for end in ("start", "end"))
    return pl.DataFrame({"patient_id": text(table["person_id"]), "start": first, "end": last})


def _visits(table: pl.DataFrame, concepts: pl.DataFrame) -> pl.DataFrame:
    kind, went = whole(table["visit_concept_id"]), whole(table["discharged_to_concept_id"])
    went = went.zip_with((went > 0).fill_null(False), whole(table["discharge_to_concept_id"]))
    name = _look_up(went, concepts, "name")[0]
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


def _diagnoses(
    table: pl.DataFrame,
    visits: pl.DataFrame,
    concepts: pl.DataFrame,
    mapped: pl.DataFrame,
    options: OmopOptions,
    told: Counter[str],
) -> pl.DataFrame:
    status = whole(table["condition_status_concept_id"])
    position = whole(table["condition_type_concept_id"]).replace_strict(_POSITIONS, default=None, return_dtype=pl.Int32)
    link = pl.DataFrame({"patient_id": text(table["person_id"]), "visit_id": _link(table["visit_occurrence_id"])})
    time, days = _time(table, "condition_start"), None
    if options.us_icd:
        known = visits.filter(~no_end())
        ends = known.group_by(link.columns).agg(pl.col("discharge_time").max())
        days = link.join(ends, on=link.columns, how="left", maintain_order="left")["discharge_time"]
        days = days.zip_with(days.is_not_null(), time)
    codes = pl.DataFrame(_code(table, "condition", concepts, options.source_value_system, days))
    if options.icd_from_snomed:
        codes = _with_icd(codes, table["condition_concept_id"], mapped, options.icd_from_snomed, told)
    rows = pl.DataFrame({**link.to_dict(), "time": time, **codes.to_dict(), "status": status, "position": position})
    return rows.select(
        "patient_id", "visit_id", "time", "code_system", "code",
        pl.when(pl.col("status").is_in(_ON_ADMISSION)).then(True).alias("present_on_admission"),
        pl.when(pl.col("status").is_in(_PRIMARY)).then(1)
        .when(pl.col("position").is_not_null()).then("position")
        .when(pl.col("status").is_in(_SECONDARY)).then(2)
        .cast(pl.Int32).alias("priority"),
    )  # fmt: skip


def _with_icd(
    codes: pl.DataFrame, ids: pl.Series, mapped: pl.DataFrame, system: str, told: Counter[str]
) -> pl.DataFrame:
    """code_system and code of each row, those of SNOMED in place of which `mapped` has one of ICD replaced."""
    rows = codes.with_columns(whole(ids).alias("concept_id")).join(
        mapped.with_columns(is_mapped=True), on="concept_id", how="left", maintain_order="left"
    )
    snomed = (pl.col("code_system") == "SNOMED").fill_null(False)
    counts = rows.filter(snomed).select(
        one=pl.col("icd").is_not_null().sum(),
        several=(pl.col("is_mapped") & pl.col("icd").is_null()).sum(),
        none=pl.col("is_mapped").is_null().sum(),
    )
    words = {
        "one": f"SNOMED diagnoses read as {system}",
        "several": f"SNOMED diagnoses to which several codes of {system} map",
        "none": f"SNOMED diagnoses to which no code of {system} maps alone",
    }
    told.update({words[name]: int(count or 0) for name, count in counts.row(0, named=True).items()})
    takes = snomed & pl.col("icd").is_not_null()
    return rows.select(
        code_system=pl.when(takes).then(pl.lit(system)).otherwise("code_system"),
        code=pl.when(takes).then("icd").otherwise("code"),
    )


def _events(table: pl.DataFrame | None, kind: str, start: str, concepts: pl.DataFrame) -> pl.DataFrame | None:
    """Rows of medications, measurements or procedures; None where the source has no such table."""
    if table is None:
        return None
    columns = {
        "patient_id": text(table["person_id"]),
        "visit_id": _link(table["visit_occurrence_id"]),
        "time": _time(table, start),
        **_code(table, kind, concepts),
    }
    if kind == "drug":
        name, system, level = _look_up(table["drug_concept_id"], concepts, "name", "system", "class")
        is_ingredient = (level == "Ingredient") & system.str.starts_with("RxNorm")
        columns["ingredient"] = name.set(~is_ingredient.fill_null(False), None)
    elif kind == "measurement":
        unit = text(table["unit_source_value"])
        columns["value"] = number(table["value_as_number"])
        columns["unit"] = unit.zip_with(unit.is_not_null(), _look_up(table["unit_concept_id"], concepts, "code")[0])
    return pl.DataFrame(columns)


def _code(
    table: pl.DataFrame, kind: str, concepts: pl.DataFrame, value_system: str = "", days: pl.Series | None = None
) -> dict[str, pl.Series]:
    """code_system and code of each row; null where there is neither a concept nor a text that looks like a code.

    Texts that look like a code of nobody knows what are of the system SOURCE: they are counted, and leave.

    With `days` (of discharge or service), values are ICD codes of a US site whose version is told by shape and day.
    """
    columns = {"source": "source_concept_id", "standard": "concept_id"}
    rows = pl.DataFrame(
        {name: whole(table[f"{kind}_{column}"]) for name, column in columns.items()}
        | {"value": text(table[f"{kind}_source_value"])}
    )
    if days is not None:
        rows = rows.with_columns(days.alias("day"))
    codes = by_distinct(rows, functools.partial(_code_of_each, kind=kind, concepts=concepts, value_system=value_system))
    return dict(zip(codes.columns, codes.get_columns(), strict=True))


def _code_of_each(rows: pl.DataFrame, kind: str, concepts: pl.DataFrame, value_system: str) -> pl.DataFrame:
    """code_system and code of rows with their concepts' ids `source` and `standard`, `value` and maybe `day`."""
    frame = rows.with_columns(
        series.alias(f"{name}_{part}")
        for name in ("source", "standard")
        for part, series in zip("sc", _look_up(rows[name], concepts, "system", "code"), strict=True)
    )
    value = pl.col("value")
    coded = value.str.contains(_CODE_SIGNS) & value.str.contains(_DIGIT)
    of_system = coded
    if value_system.startswith("ICD9"):
        of_system = coded & value.str.contains(r"(?i)^(?:E\d{3}|V?\d)[\d.]*$")
    elif value_system.startswith(("ICD", "CIM", "KCD")):
        of_system = value.str.contains(rf"^[A-Za-z]\d{_MARKED}{{0,18}}$")
    elif value_system:
        of_system = value.str.contains(_SNOMED) if value_system == "SNOMED" else coded & ~value.str.contains(_NUMBERS)
    its_word, its_code = system_name(value.str.extract(_NAMED_SYSTEM, 1)), value.str.extract(_NAMED_SYSTEM, 2)
    its_word = pl.when((its_word != "SNOMED") | its_code.str.contains(_SNOMED)).then(its_word)
    of_option = pl.lit(value_system or None, pl.String)
    if "day" in rows.columns:
        of_option = guess_icd_version(value, pl.col("day"))
        of_option = pl.when(of_option != EITHER).then(of_option)
    told = [
        (its_word, its_code),
        (pl.when(of_system).then(of_option), value),
    ]
    source, standard = ((pl.col(f"{name}_s"), pl.col(f"{name}_c")) for name in ("source", "standard"))
    if kind == "condition":
        icd = pl.when(source[0].str.contains(_ICD)).then(source[0]), source[1]
        order = [icd, *told, standard, source]
    else:
        order = [source, *told, standard] if kind == "procedure" else [standard, source, *told]
    system, code = pl.lit(SOURCE), pl.when(coded).then(value)
    for its_system, its_code in reversed(order):
        both = its_system.is_not_null() & its_code.is_not_null()
        system, code = pl.when(both).then(its_system).otherwise(system), pl.when(both).then(its_code).otherwise(code)
    frame = frame.select(code_system=system, code=code)
    return frame.with_columns(code_system=pl.when(pl.col("code").is_not_null()).then("code_system"))


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


def _event_table(name: str, kind: str, start: str, required: tuple[str, ...], *optional: str) -> RawTable:
    coded = ("visit_occurrence_id", f"{kind}_source_concept_id", f"{kind}_source_value", f"{start}_datetime")
    always = ("person_id", f"{kind}_concept_id", f"{start}_date")
    return RawTable(
        name, "person_id", always + required, coded + optional, needed=name == "condition_occurrence",
        times=(f"{start}_date", f"{start}_datetime"), codes=(f"{kind}_source_value",),
        numbers=tuple(column for column in optional if column.startswith("value_as")),
    )  # fmt: skip


_PERIOD = ("observation_period_start_date", "observation_period_end_date")
OMOP = Reader(
    format="omop",
    tables=(
        RawTable(
            "person", "person_id", ("person_id", "gender_concept_id", "year_of_birth"),
            ("month_of_birth", "day_of_birth", "birth_datetime", "race_concept_id", "race_source_value"),
            times=("birth_datetime",),
        ),
        RawTable(
            "visit_occurrence", "person_id",
            ("visit_occurrence_id", "person_id", "visit_concept_id", "visit_start_date", "visit_end_date"),
            ("visit_start_datetime", "visit_end_datetime", "discharged_to_concept_id", "discharge_to_concept_id"),
            times=("visit_start_date", "visit_end_date", "visit_start_datetime", "visit_end_datetime"),
            stay=("visit_start_date", "visit_end_date"),
        ),
        _event_table("condition_occurrence", "condition", "condition_start", (), "condition_status_concept_id",
                     "condition_type_concept_id"),
        _event_table("drug_exposure", "drug", "drug_exposure_start", ()),
        _event_table("measurement", "measurement", "measurement", (), "value_as_number", "unit_source_value",
                     "unit_concept_id"),
        _event_table("procedure_occurrence", "procedure", "procedure", ()),
        RawTable("death", "person_id", ("person_id", "death_date"), ("death_datetime",), needed=False,
                 times=("death_date", "death_datetime")),
        RawTable("observation_period", "person_id", ("person_id",), _PERIOD, needed=False, times=_PERIOD),
        RawTable("concept", "", ("concept_id", "vocabulary_id", "concept_code"), ("concept_name", "concept_class_id"),
                 needed=False, key="concept_id", codes=("concept_code",),
                 names=("concept_name", "concept_class_id", "vocabulary_id")),
        RawTable("concept_relationship", "", ("concept_id_1", "concept_id_2", "relationship_id"), ("invalid_reason",),
                 needed=False, leads=("concept_id", "concept_id_2", "concept_id_1"),
                 only=("relationship_id", "Maps to"), ids=("concept_id_1", "concept_id_2"), option="icd_from_snomed"),
    ),
    build=_build,
    options=OmopOptions,
    check=_check,
    remedies={
        "unlinked_code": "--options.unlinked visit_of_the_day",
        "unnamed_system": "--options.source-value-system SYSTEM, or --options.us-icd",
        "missing_code": "the table concept, with the concepts that these rows name",
        "no_admission": "dates as 2011-05-03",
        "unlisted_patient": "the table person, with all who have rows",
    },
)  # fmt: skip
