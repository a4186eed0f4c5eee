"""Reader of the Medical Event Data Standard (MEDS 0.3 and 0.4): one long table of subject, time, code and value.

What a code means and what a visit is are not part of the standard; both are options here.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import polars as pl

from medbert_jax.checked_fields import check_fields
from medbert_jax.ehr.codes import system_name
from medbert_jax.ingest.assembly import Left, Rough
from medbert_jax.ingest.reader import RawTable, Reader, count_unknown, moment, number, text, whole
from medbert_jax.ingest.readers.med_bert_tsv import US_ICD, tell_version
from medbert_jax.ingest.readers.mimic_iv import disposition
from medbert_jax.ingest.source_files import SourceError

_TABLES = ("diagnoses", "medications", "measurements", "procedures")
_VISIT_COLUMNS = ("visit_id", "hadm_id", "encounter_id")
_SPLITS = {"train": "train", "tuning": "validation", "held_out": "test"}
_VISITS = {
    "column": "A visit is what one value of visit_id, hadm_id or encounter_id (the first that is there) names.",
    "events": "A visit is a stay: an admission event, up to the first discharge event after it and before the next "
    "admission, or up to the admission's column end.",
    "day": "A visit is a calendar day with diagnoses of the patient (visit ids that begin with day/), of unknown type "
    "and discharge.",
    "auto": "A code with a value in visit_id, hadm_id or encounter_id (the first that is there) belongs to the visit "
    "that it names; without one, to the stay whose time, from admission to discharge event, holds it. This is decided "
    "for each code alone, so that it is the same in all shards.",
}
_WITHIN = "A code within no stay by its time belongs to a stay that includes its calendar day."
_OUTSIDE = {
    "day": "Diagnoses outside such visits make one visit per calendar day (visit ids that begin with day/), of unknown "
    "type and discharge.",
    "none": "Codes outside such visits belong to no visit.",
}
_ORIGINS = {
    "drug": "medications", "measurement": "measurements", "procedure": "procedures", "observation": "none",
    "device": "none", "specimen": "none",
}  # fmt: skip
_VERSIONLESS = (r"(?i)^(?:DIAGNOSIS/+)?ICD/+(?P<code>[^/]+)$", "diagnoses", "ICD")
_SEX = r"(?i)^(?:f|m|u|o|fem|mal|unk|oth|not |no |undiff|ambig|inter)"
"""Beginnings of what a sex, or that it is not known, is called."""
_PEOPLE = (
    (r"^MEDS_BIRTH(?:/|$)", "birth", ""),
    (r"^MEDS_DEATH(?:/|$)", "death", ""),
    (r"(?i)^(?:MIMIC_IV_)?(?:GENDER|SEX)/+(?P<code>.+)$", "sex", ""),
    (r"(?i)^(?:MIMIC_IV_)?RACE/+(?P<code>.+)$", "race", ""),
)


@dataclass(frozen=True)
class MedsOptions:
    """What MEDS leaves to the dataset. Regular expressions are Rust's: no look-around."""

    visits: Literal["auto", "column", "events", "day"] = "auto"
    """Which codes are one visit: those with one visit_id, hadm_id or encounter_id; those between events of admission
    and discharge; those of a calendar day; auto tries the first two for each code."""
    outside: Literal["day", "none"] = "day"
    """What becomes of a diagnosis outside all visits: one visit per calendar day, or no visit (it leaves, counted)."""
    birth_year_only: bool = False
    """Whether MEDS_BIRTH is right to the year only (made from MIMIC-IV it is on 1 January)."""
    us_icd: bool = False
    """Whether ICD codes that do not say their version (ICD/250.00, DIAGNOSIS//ICD//25000, or of system ICD by
    `patterns`) are those of a US site: read as ICD-9-CM or ICD-10-CM, by their shape and, where both have such a code
    (V27.0), by the day of discharge or of the code, which must then be of a real calendar. Else no pattern knows
    them."""
    admissions: tuple[tuple[str, str], ...] = (
        (r"(?i)^VISIT/+(?:IP|ERIP|INPATIENT|9201|262)\b", "inpatient"),
        (r"(?i)^VISIT/+(?:ER|ED|EMERGENCY|9203)\b", "emergency"),
        (r"(?i)^VISIT/+(?:OP|OUTPATIENT|9202)\b", "outpatient"),
        (r"(?i)^VISIT(?:/|$)", ""),
        (r"(?i)^(?:HOSPITAL_|MIMIC_IV_)?ADMISSION/+(?:EU|AMBULATORY|DIRECT) OBSERVATION", "other"),
        (r"(?i)^(?:HOSPITAL_|MIMIC_IV_)?ADMISSION(?:/|$)", "inpatient"),
    )
    """Codes with which a visit begins, and its type (inpatient, outpatient, emergency, other; "" unknown); the first
    match counts."""
    discharges: tuple[str, ...] = (
        r"(?i)^(?:HOSPITAL_)?DISCHARGE(?:/+(?P<code>.+))?$",
        r"^MIMIC_IV_Discharge_Location/(?P<code>.+)$",
    )
    """Codes with which a visit ends; the group `code` names where the patient went."""
    patterns: tuple[tuple[str, str, str], ...] = (
        (r"(?i)^(?P<system>ICD9(?:CM)?|ICD10(?:[A-Z]{2})?|CIM10|KCD\d*)/+(?P<code>.+)$", "diagnoses", ""),
        (r"(?i)^DIAGNOSIS//ICD//9//(?P<code>.+)$", "diagnoses", "ICD9CM"),
        (r"(?i)^DIAGNOSIS//ICD//10//(?P<code>.+)$", "diagnoses", "ICD10CM"),
        (r"(?i)^SNOMED(?:CT)?/+(?P<code>.+)$", "diagnoses", "SNOMED"),
        (r"(?i)^(?P<system>RxNorm(?: Extension)?|NDC|ATC)/+(?P<code>.+)$", "medications", ""),
        (r"(?i)^MEDICATION//START//(?P<code>.+)$", "medications", "name"),
        (r"(?i)^MEDICATION//(?P<code>.+)//Administered$", "medications", "name"),
        (r"(?i)^MIMIC_IV_Drug/(?P<code>.+)$", "medications", "name"),
        (r"(?i)^LOINC/+(?P<code>.+)$", "measurements", "LOINC"),
        (r"(?i)^LAB//(?:RESULT//)?(?P<code>\d+)//(?P<unit>.+)$", "measurements", "MIMIC_ITEM"),
        (r"(?i)^MIMIC_IV_(?:LAB)?ITEM/(?P<code>\d+)", "measurements", "MIMIC_ITEM"),
        (r"(?i)^(?P<system>ICD10PCS|CPT4|HCPCS)/+(?P<code>.+)$", "procedures", ""),
        (r"(?i)^ICD9(?:Proc|PCS)/+(?P<code>.+)$", "procedures", "ICD9Proc"),
        (r"(?i)^PROCEDURE//ICD//9//(?P<code>.+)$", "procedures", "ICD9Proc"),
        (r"(?i)^PROCEDURE//ICD//10//(?P<code>.+)$", "procedures", "ICD10PCS"),
    )
    """What codes mean, first match first: expression with a group `code` (and maybe `unit`, `system`), table, code
    system ("" where the group `system` gives it)."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        rule, example = "(expression, table, code system)", '("^DX:(?P<code>.+)$", "diagnoses", "ICD10CM")'
        faults = self._pattern_faults()
        check_fields(
            self,
            also=(f"patterns of MEDS codes must be {rule}: got {one}; write for instance {example}" for one in faults),
        )

    def _pattern_faults(self) -> Iterator[str]:
        for regex in (*self.discharges, *(pattern[0] for pattern in (*self.admissions, *self.patterns))):
            try:
                pl.Series([""]).str.contains(regex)
            except pl.exceptions.ComputeError:
                yield f'"{regex}" is no regular expression'
        for regex, table, system in self.patterns:
            if table not in _TABLES:
                yield f'"{regex}" goes to "{table}", which is none of {", ".join(_TABLES)}'
            if "code" not in _groups(regex) or not (system or "system" in _groups(regex)):
                yield f'"{regex}" lacks a group (?P<code>…), or says no code system'


def _groups(regex: str) -> list[str]:
    return re.findall(r"\(\?P?<(\w+)>", regex)


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
        named=pl.coalesce(text(data[column]) for column in _VISIT_COLUMNS),
        origin=pl.coalesce(text(data["table"]), text(data["omop_table"])),
    )
    if options.us_icd:
        options = replace(options, patterns=(*options.patterns, _VERSIONLESS))
    rows = data.join(_meanings(data["code"], options), on="code", how="left")
    # A row without a code is a diagnosis without one: it is counted there.
    rows = rows.with_columns(role=pl.when(pl.col("code").is_null()).then(pl.lit("diagnoses")).otherwise("role"))
    # SNOMED has codes of all kinds; some datasets keep the name of the OMOP table.
    of_origin = pl.col("origin").str.to_lowercase().str.extract(f"^({'|'.join(_ORIGINS)})").replace_strict(_ORIGINS)
    snomed = (pl.col("system") == "SNOMED") & of_origin.is_not_null()
    rows = rows.with_columns(role=pl.when(snomed).then(of_origin).otherwise("role"))

    for role, mark in (("birth", "MEDS_BIRTH"), ("death", "MEDS_DEATH")):
        count_unknown(f"time of {mark}", rows.filter((pl.col("role") == role) & pl.col("untimed")).height)
    visits = _visits(rows, options)
    codes = _linked(rows.filter(pl.col("role").is_in(_TABLES)), visits, options)
    codes = codes.select(
        "patient_id", "visit_id", "time", "role", "priority", code_system="system", code="value", number="number",
        unit=pl.coalesce("unit", "unit_in_code").replace("UNK", None),
    )  # fmt: skip
    of = {name: codes.filter(pl.col("role") == name) for name in _TABLES}
    left = [Left("unknown_pattern", "Rows whose code no pattern of the options knows",
                 codes=rows.filter(pl.col("role").is_null()).height),
            Left("other_table", "SNOMED codes of the tables observation, device_exposure or specimen: no diagnoses",
                 codes=rows.filter(pl.col("role") == "none").height)]  # fmt: skip
    if options.us_icd:
        ends = visits.group_by("patient_id", "visit_id").agg(pl.col("discharge_time").max())
        dated = of["diagnoses"].join(ends, on=["patient_id", "visit_id"], how="left")
        of["diagnoses"], undecided = tell_version(dated, pl.coalesce("discharge_time", "time"))
        left.append(undecided)
    is_day = (pl.col("visit_id").str.starts_with("day/")).fill_null(False)
    days = of["diagnoses"].filter(is_day).group_by("patient_id", "visit_id")
    days = days.agg(admit_time=pl.col("time").min().dt.truncate("1d"))
    event = ["patient_id", "visit_id", "time", "code_system", "code"]
    came = visits.select("patient_id", "visit_id").unique()
    by_stay = came.filter(pl.col("visit_id").str.starts_with("stay/")).height
    told = {"by id": came.height - by_stay, "by stay": by_stay, "by day": days.height}
    return Rough(
        patients=_patients(rows, raw.get("subject_splits"), options),
        visits=pl.concat([visits, days], how="diagonal"),
        diagnoses=of["diagnoses"].select("patient_id", "visit_id", "code_system", "code", "priority"),
        medications=of["medications"].select(event),
        measurements=of["measurements"].select(*event, "unit", value="number"),
        procedures=of["procedures"].select(event),
        has_dates=True,
        age_precision="year" if options.birth_year_only else "day",
        assumptions=_assumptions(options),
        left=tuple(left),
        told=Counter({f"visits {how}": count for how, count in told.items()}),
        other_ids=raw["subject_splits"]["subject_id"] if "subject_splits" in raw else pl.Series(dtype=pl.String),
    )


def _assumptions(options: MedsOptions) -> tuple[str, ...]:
    return (
        _VISITS[options.visits],
        *[_WITHIN] * (options.visits in ("auto", "events")),
        *[_OUTSIDE[options.outside]] * (options.visits != "day"),
        "Admission of a visit is its admission event, else its first event; discharge is its discharge event, else the "
        "column end of its admission, else unknown.",
        "A discharge event makes no visit: without an admission before it, it says nothing.",
        "Birth is MEDS_BIRTH" + (", of which only the year is taken." if options.birth_year_only else ", to the day."),
        "Sex and race are the latest that are given; birth and death are unknown where rows contradict each other.",
        "Splits train, tuning, held_out of subject_splits are train, validation, test; a patient in two splits, or in "
        "one of another name, has none.",
        "Priority is the column seq_num; present on admission and captured at billing are unknown.",
        *[US_ICD] * options.us_icd,
        "SNOMED codes are diagnoses unless the column table or omop_table names drugs, measurements or procedures; "
        "those of observations, devices and specimens leave under other_table.",
        "Not read: text_value, metadata/codes.parquet.",
    )


def _meanings(codes: pl.Series, options: MedsOptions) -> pl.DataFrame:
    """Every different code once: code, role (a table, or birth, death, sex, race, admission, discharge), system, …"""
    patterns = (
        *_PEOPLE,
        *((regex, "admission", kind) for regex, kind in options.admissions),
        *((regex, "discharge", "") for regex in options.discharges),
        *options.patterns,
    )
    code, absent, found = pl.col("code"), pl.lit(None, pl.String), []
    for regex, role, system in patterns:
        names, parts = _groups(regex), code.str.extract_groups(regex).struct
        groups = {name: parts.field(name) if name in names else absent for name in ("code", "unit", "system")}
        meaning = pl.struct(
            role=pl.lit(role),
            system=pl.coalesce(groups["system"], pl.lit(system or None, pl.String)),
            value=groups["code"].str.strip_chars(),
            unit_in_code=groups["unit"],
        )
        found.append(pl.when(code.str.contains(regex)).then(meaning))
    distinct = codes.drop_nulls().unique().to_frame("code")
    meanings = distinct.select("code", pl.coalesce(found).alias("meaning")).unnest("meaning")
    of_code = pl.when(pl.col("role").is_in(_TABLES)).then(system_name(pl.col("system")))
    return meanings.with_columns(system=pl.coalesce(of_code, "system"))


def _patients(rows: pl.DataFrame, splits: pl.DataFrame | None, options: MedsOptions) -> pl.DataFrame:
    def only(role: str) -> pl.Expr:
        days = pl.col("time").dt.date().filter(pl.col("role") == role).drop_nulls()
        return pl.when(days.n_unique() == 1).then(days.first())

    def latest(value: pl.Expr) -> pl.Expr:
        return value.sort_by(pl.col("time"), value, nulls_last=False).drop_nulls().last()

    odd = (pl.col("role") == "sex") & ~pl.col("value").str.contains(_SEX)
    count_unknown("code of sex", int(rows.select(odd.fill_null(False).sum()).item()))
    letter = pl.col("value").str.slice(0, 1).str.to_lowercase()
    sex = letter.replace_strict({"f": "female", "m": "male"}, default=None, return_dtype=pl.String)
    told = rows.filter(pl.col("role").is_in(("birth", "death", "sex", "race")) | pl.col("race").is_not_null())
    told = told.group_by("patient_id").agg(
        birth_date=only("birth"),
        death_date=only("death"),
        sex=latest(pl.when(pl.col("role") == "sex").then(sex)),
        race=latest(pl.coalesce(pl.when(pl.col("role") == "race").then("value"), "race")),
    )
    if options.birth_year_only:
        told = told.with_columns(birth_year=pl.col("birth_date").dt.year(), birth_date=pl.lit(None, pl.Date))
    patients = rows.select("patient_id").unique()
    if splits is None:
        return patients.join(told, on="patient_id", how="left")
    split = text(splits["split"]).replace_strict(_SPLITS, default=None, return_dtype=pl.String)
    named = splits.select(patient_id="subject_id", split=split, written=text(splits["split"])).drop_nulls("patient_id")
    named = named.group_by("patient_id").agg(
        split=pl.when(pl.col("written").n_unique() == 1).then(pl.col("split").first())
    )
    patients = pl.concat([patients, named.select("patient_id")]).unique()
    return patients.join(told, on="patient_id", how="left").join(named, on="patient_id", how="left")


def _visits(rows: pl.DataFrame, options: MedsOptions) -> pl.DataFrame:
    """Visits that the source itself marks: by an id, by events of admission and discharge, or both.

    A row per admission event, those of one visit alike, so that the rules count the further ones and those that lack
    a subject or a time.
    """
    empty = pl.DataFrame(
        schema={
            "patient_id": pl.String,
            "visit_id": pl.String,
            "admit_time": pl.Datetime("us"),
            "discharge_time": pl.Datetime("us"),
            "visit_type": pl.String,
            "discharge_disposition": pl.String,
        }
    )
    parts = [empty]
    if options.visits in ("auto", "column"):
        parts.append(_named_visits(rows.drop_nulls("named")))
    if options.visits in ("auto", "events"):
        marks = rows.filter(pl.col("role").is_in(("admission", "discharge")))
        parts.append(_stays(marks.filter(pl.col("named").is_null()) if options.visits == "auto" else marks))
    return pl.concat([part.select(empty.columns) for part in parts])


def _named_visits(rows: pl.DataFrame) -> pl.DataFrame:
    def of(role: str, column: str | pl.Expr) -> pl.Expr:
        column = pl.col(column) if isinstance(column, str) else column
        order = [key.filter(pl.col("role") == role) for key in (pl.col("time"), pl.col("code"))]
        return column.filter(pl.col("role") == role).sort_by(*order)

    visits = rows.group_by("patient_id", visit_id="named").agg(
        copies=pl.int_range((pl.col("role") == "admission").sum().clip(1)),
        admit_time=pl.coalesce(of("admission", "time").min(), pl.col("time").min()),
        discharge_time=pl.coalesce(of("discharge", "time").max(), of("admission", "end").max()),
        visit_type=of("admission", "system").first(),
        discharge_disposition=of("discharge", disposition(pl.col("value"))).drop_nulls().last(),
    )
    return visits.explode("copies")


def _stays(marks: pl.DataFrame) -> pl.DataFrame:
    """Visits from admission events and the discharge events that follow them."""
    keys = ["patient_id", "time"]
    admissions, marks = marks.filter(pl.col("role") == "admission").select(keys), marks.drop_nulls(keys)
    began = marks.filter(pl.col("role") == "admission").sort(*keys, "code")
    began = began.group_by(keys).agg(pl.col("end").max(), visit_type=pl.col("system").first()).sort(keys)
    ended = marks.filter(pl.col("role") == "discharge").sort(*keys, "code")
    ended = ended.group_by(keys).agg(to=disposition(pl.col("value")).drop_nulls().first()).sort(keys)
    ended = ended.with_columns(at="time")
    began = began.with_columns(following=pl.col("time").shift(-1).over("patient_id"))
    began = began.join_asof(
        ended, on="time", by="patient_id", strategy="forward", allow_exact_matches=False, check_sortedness=False
    ).join(ended, on=keys, how="left", suffix="_same")
    # A stay that ends in the moment it began only has that discharge: else it belongs to the stay before.
    later = pl.col("at").is_not_null() & (pl.col("at") <= pl.col("following")).fill_null(True)
    stays = began.select(
        *keys,
        "visit_type",
        visit_id="stay/" + pl.col("time").dt.to_string("%Y-%m-%dT%H:%M:%S%.f"),
        admit_time="time",
        discharge_time=pl.when(later).then("at").otherwise(pl.coalesce("end", "at_same")),
        discharge_disposition=pl.when(later).then("to").otherwise("to_same"),
    )
    untimed = "stay/untimed-" + pl.int_range(pl.len()).over("patient_id").cast(pl.String)
    return admissions.join(stays, on=keys, how="left").with_columns(
        visit_id=pl.when(pl.col("time").is_null()).then(untimed).otherwise("visit_id")
    )


def _linked(codes: pl.DataFrame, visits: pl.DataFrame, options: MedsOptions) -> pl.DataFrame:
    """The codes with visit_id: by its name, the stay around it, the day, in this order, as far as the options go."""
    by_name = options.visits in ("auto", "column")
    codes = codes.with_columns(visit_id=pl.col("named") if by_name else pl.lit(None, pl.String))
    if options.visits in ("auto", "events"):
        stays = visits.with_columns(discharge_time=pl.coalesce("discharge_time", "admit_time"))
        for unit in (pl.col, lambda name: pl.col(name).dt.truncate("1d")):
            codes = _within(codes, stays.with_columns(unit("admit_time"), unit("discharge_time")), unit("time"))
    if options.visits == "day" or options.outside == "day":
        on_day = "day/" + pl.col("time").dt.to_string("%Y-%m-%d")
        codes = codes.with_columns(visit_id=pl.coalesce("visit_id", on_day))
    return codes


def _within(codes: pl.DataFrame, stays: pl.DataFrame, time: pl.Expr) -> pl.DataFrame:
    """Fill in visit_id where `time` lies in a stay: the one that began last, or else the one that ends last."""
    stays = stays.drop_nulls(["patient_id", "admit_time"]).sort("admit_time", "discharge_time", "visit_id")
    furthest = pl.col("discharge_time").cum_max().over("patient_id")
    ends_last = pl.when(pl.col("discharge_time") == furthest).then("visit_id").forward_fill().over("patient_id")
    stays = stays.select(
        "patient_id", at="admit_time", last="visit_id", until="discharge_time", furthest=furthest, ends_last=ends_last
    )
    open_ = pl.col("visit_id").is_null() & pl.col("time").is_not_null() & pl.col("patient_id").is_not_null()
    found = codes.filter(open_).with_columns(at=time).sort("at")
    found = found.join_asof(stays, on="at", by="patient_id", strategy="backward", check_sortedness=False)
    inside = (
        pl.when(pl.col("at") <= pl.col("until")).then("last").when(pl.col("at") <= pl.col("furthest")).then("ends_last")
    )
    found = found.with_columns(visit_id=inside).select(codes.columns)
    return pl.concat([codes.filter(~open_), found])


def _check(told: Counter[str], options: MedsOptions) -> None:
    """Raise SourceError where visits are to be those of a column, and there is none, or nothing in it."""
    if options.visits == "column" and not told["visits by id"]:
        names = ", ".join(_VISIT_COLUMNS)
        what = f"--options.visits column needs values in a column {names}, and there are none (try auto, events or day)"
        raise SourceError("meds", [("data", "missing_column", what)])


_COLUMNS = ("numeric_value", *_VISIT_COLUMNS, "end", "unit", "seq_num", "race", "table", "omop_table")
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
