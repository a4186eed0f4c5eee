"""Rough tables of one shard → EHR tables and ledgers: the rules that every source goes through, in one order.

A reader maps its columns and leaves nulls; what is wrong with a row is found and counted here, so that the same fault
has the same rule id, whatever the source.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.ehr.codes import SOURCE
from medbert_jax.ehr.schema import EVENT_TABLES, SCHEMAS, EhrSource, EhrTables
from medbert_jax.ingest.code_rows import codes_that_stay, titles_of, with_normal_forms
from medbert_jax.ingest.deaths import one_death_each
from medbert_jax.ingest.ends import Calendar, open_stays
from medbert_jax.ingest.follow_up import follow_up_of, from_birth
from medbert_jax.ingest.icd9_zeros import numeric_codes
from medbert_jax.ingest.life_days import births_that_are_some, deaths_that_are_some
from medbert_jax.ingest.linking import link_strays
from medbert_jax.ingest.patient_rows import one_row_each
from medbert_jax.ingest.rough import Left, Rough
from medbert_jax.ingest.visit_rows import OF_VISIT, VISIT_RULES, in_order, once_each, rule_of_visit, stays

_RULES = {
    "null_patient_id": "Rows without a patient id",
    "unlisted_patient": "Rows of patients that the table of patients lacks",
    "duplicate_patient": "Further rows of one patient in the table of patients",
    "null_visit_id": "Visits without an id",
    "duplicate_visit": "Further rows of one visit",
    "no_admission": "Visits without a readable admission time",
    "implausible_time": "Visits with an admission before 1900 or after 2300",
    "before_birth": "Visits before the patient's birth",
    "after_death": "Visits that begin after death, by the clock where it is known, else after its day",
    "unlinked_code": "Codes of no visit of their patient",
    "missing_code": "Rows without a code",
    "unnamed_system": "Source values of no named code system (--options.source-value-system)",
    "unreadable_code": "Text that is no code of its system",
    "duplicate_code": "Identical rows of one code in one visit",
}
_DEATH = ["patient_id", "death_date", "death_time"]


@dataclass(frozen=True)
class Assembled:
    """One shard's tables with what was counted on the way."""

    tables: EhrTables
    splits: pl.DataFrame
    """patient_id, split: patients whose split the source itself says."""
    ledger: Ledger
    events: Ledger
    """The same rules on medications, measurements and procedures, whose rows count as codes here."""
    unreadable: Counter[str]
    """Cells that say what cannot be, and are unknown now, by column; their rows stay."""
    told: Counter[str]
    """Of `Rough`, with deaths and links that were not as named, and codes that are read otherwise than written."""
    rows: Counter[str]
    """Rows that came, by table."""
    lost: Counter[tuple[str, str]]
    """Rows that left, by table and rule."""
    systems: Counter[tuple[str, str]]
    """Rows of each table by code system: those that stay, and source values of no named system (`SOURCE`)."""
    icd9: pl.DataFrame
    """Distinct ICD-9 codes of digits as written, with their rows (`icd9_zeros.numeric_codes`)."""
    titles: pl.DataFrame
    """code_system, code, title of the codes that are in some table, each once, where the source has words for them."""


def assemble(
    format: str,
    rough: Rough,
    *,
    outpatient_los_zero: bool = False,
    restore_zeros: bool = False,
    calendar: Calendar | None = None,
) -> Assembled:
    """Apply the rules and give the tables their final columns and order of visits.

    Visits are in order of admission, discharge and visit id; length_of_stay is discharge day − admission day where the
    source doesn't state it; where only the year of birth is known, ages are counted from 1 July, ± half a year.
    `outpatient_los_zero` gives outpatient visits without a discharge a length of stay of 0 days. `restore_zeros` reads
    ICD-9 codes without a dot by `icd9_zeros.with_zeros`. `calendar` is that of the whole source: what its stays' ends
    are judged by.
    """
    extra = {"birth_year": pl.Int32(), "split": pl.String()}
    patients = _typed(rough.patients, SCHEMAS["patients"] | extra)
    patients = patients.with_columns(pl.when(pl.col("birth_year").is_between(1, 9999)).then("birth_year"))
    visits = _typed(rough.visits, SCHEMAS["visits"] | {"still_patient": pl.Boolean()})
    codes = {"diagnoses": _typed(rough.diagnoses, SCHEMAS["diagnoses"])} | {
        name: _typed(table, SCHEMAS[name]) for name in EVENT_TABLES if (table := getattr(rough, name)) is not None
    }
    rows_in = {name: table.height for name, table in codes.items()}
    follow_up = None
    if rough.follow_up is not None:
        follow_up = _typed(rough.follow_up, SCHEMAS["follow_up"])
        rows_in["follow_up"] = follow_up.height
    # 1 is the principal diagnosis: there is no place before it.
    no_place = (pl.col("priority") < 1).fill_null(False)
    unreadable = Counter(priority=int(codes["diagnoses"].select(no_place.sum()).item()))
    codes["diagnoses"] = codes["diagnoses"].with_columns(priority=pl.when(~no_place).then("priority"))
    left = {rule: dict.fromkeys(("patients", "visits", *codes, "follow_up"), 0) for rule in _RULES}
    told = Counter(rough.told)

    def count(rule: str, table: str, before: pl.DataFrame, after: pl.DataFrame) -> pl.DataFrame:
        left[rule][table] += before.height - after.height
        return after

    has_id = pl.col("patient_id").is_not_null() & (pl.col("patient_id") != "")
    others = _typed(rough.other_ids.to_frame("patient_id"), {"patient_id": pl.String()})
    patients_in, visits_in = patients.height + others.null_count().item(), visits.height
    others = count("null_patient_id", "patients", others, others.filter(has_id))
    patients = count("null_patient_id", "patients", patients, patients.filter(has_id))
    visits = count("null_patient_id", "visits", visits, visits.filter(has_id))
    codes = {name: count("null_patient_id", name, table, table.filter(has_id)) for name, table in codes.items()}
    if follow_up is not None:
        follow_up = count("null_patient_id", "follow_up", follow_up, follow_up.filter(has_id))

    listed = patients.select("patient_id").unique()
    strangers = [table.select("patient_id").join(listed, on="patient_id", how="anti").unique()
                 for table in (others, visits, *codes.values())]  # fmt: skip
    unlisted = pl.concat(strangers).n_unique()
    patients_in += unlisted
    left["unlisted_patient"]["patients"] = unlisted
    if unlisted:
        visits = count("unlisted_patient", "visits", visits, visits.join(listed, on="patient_id", how="semi"))
        codes = {
            name: count("unlisted_patient", name, table, table.join(listed, on="patient_id", how="semi"))
            for name, table in codes.items()
        }
    deaths = patients.select(_DEATH)
    if rough.deaths is not None:
        said = _typed(rough.deaths, {name: patients.schema[name] for name in _DEATH})
        deaths = pl.concat([deaths, said.join(listed, on="patient_id", how="semi")])
    if follow_up is not None:
        its = follow_up.join(listed, on="patient_id", how="semi")
        follow_up, periods = follow_up_of(count("unlisted_patient", "follow_up", follow_up, its), calendar)
        told += periods
    single, contradicted = one_row_each(patients.drop(_DEATH[1:]))
    patients = count("duplicate_patient", "patients", patients, single)
    told += contradicted
    patients, unreadable["birth that is none"] = births_that_are_some(patients)
    if follow_up is not None:
        follow_up, told["periods of follow-up that begin before the birth, read from it on"] = from_birth(
            follow_up, patients
        )

    visits = count("null_visit_id", "visits", visits, visits.drop_nulls("visit_id"))
    visits, unreadable["discharge_time that is no end"] = open_stays(visits, calendar)
    deaths, unreadable["death that is none"] = deaths_that_are_some(deaths, patients, visits)
    deaths, told["patients with several days of death, of which the earliest counts"] = one_death_each(deaths, visits)
    patients = patients.join(deaths, on="patient_id", how="left", maintain_order="left")
    keys = ["patient_id", "visit_id"]
    time_order = ["order"] if not rough.has_dates else ["admit_time", "discharge_time"]
    visits = count("duplicate_visit", "visits", visits, once_each(visits, time_order))
    lives = patients.select("patient_id", "birth_date", "birth_year", "death_date", "death_time")
    visits = visits.join(lives, on="patient_id", how="left", maintain_order="left")
    visits = in_order(visits.with_columns(rule_of_visit(rough.has_dates)), time_order)
    if rough.unlinked != "drop":
        linked = codes["diagnoses"].join(visits.select(*keys, *OF_VISIT), on=keys, how="left")
        if linked["rule"].has_nulls():
            strays, linked = linked.filter(pl.col("rule").is_null()), linked.filter(pl.col("rule").is_not_null())
            there = visits.filter(pl.col("rule") == -1)
            strays, made, links = link_strays(strays.drop(OF_VISIT), there, rough.unlinked)
            told += links
            if made.height:
                visits_in += made.height
                made = made.join(lives, on="patient_id", how="left").with_columns(rule_of_visit(rough.has_dates))
                visits = in_order(pl.concat([visits, made], how="diagonal").sort(keys), time_order)
                # The numbers of visits are others now.
                strays, linked = pl.concat([linked.select(strays.columns), strays]), linked.clear()
            strays = strays.join(visits.select(*keys, *OF_VISIT), on=keys, how="left")
            linked = pl.concat([linked, strays.select(linked.columns)])
        codes["diagnoses"] = linked
    icd9 = [numeric_codes()]
    for name, table in codes.items():
        table, pairs = with_normal_forms(table, restore_zeros)
        icd9.append(numeric_codes(pairs))
        codes[name] = codes_that_stay(name, table, visits.select(*keys, *OF_VISIT), left, unreadable, told)
    systems = Counter(
        {(name, system): rows for name, table in codes.items()
         for system, rows in table["code_system"].value_counts().iter_rows()}
    ) + Counter({(name, SOURCE): left["unnamed_system"][name] for name in codes})  # fmt: skip
    for number, rule in enumerate(VISIT_RULES):
        left[rule]["visits"] = int((visits["rule"] == number).sum())
    visits = visits.filter(pl.col("rule") == -1)
    visits = visits.with_columns(*stays(rough.has_dates, outpatient_los_zero))

    tables = EhrTables(
        patients=patients.select(SCHEMAS["patients"].keys()),
        visits=visits.select(SCHEMAS["visits"].keys()),
        **{name: table.select(SCHEMAS[name].keys()) for name, table in codes.items()},
        follow_up=follow_up,
        source=EhrSource(format, rough.has_dates, rough.age_precision, rough.assumptions),
    )
    events = [name for name in codes if name != "diagnoses"]
    came = {"patients": patients_in, "visits": visits_in, "codes": rows_in["diagnoses"]}
    ledger = _ledger(f"read {format}", came, rough.left, left, ("diagnoses",))
    ledger.check(patients=patients.height, visits=visits.height, codes=codes["diagnoses"].height)
    came = {"patients": 0, "visits": 0, "codes": sum(rows_in[name] for name in events)}
    of_events = _ledger(f"read {format}: medications, measurements, procedures", came, (), left, events)
    of_events.check(patients=0, visits=0, codes=sum(codes[name].height for name in events))
    splits = patients.select("patient_id", "split").drop_nulls("split")
    rows = Counter({**rows_in, "patients": patients_in, "visits": visits_in})
    lost = Counter({(table, rule): left[rule][table] for rule in left for table in left[rule]})
    return Assembled(
        tables=tables,
        splits=splits,
        ledger=ledger,
        events=of_events,
        unreadable=+unreadable,
        told=+told,
        rows=rows,
        lost=+lost,
        systems=systems,
        icd9=pl.concat(icd9),
        titles=titles_of(rough.titles, codes.values()),
    )


def _typed(frame: pl.DataFrame, schema: dict[str, pl.DataType]) -> pl.DataFrame:
    """The columns of the schema, in its dtypes; absent ones and numbers too large for theirs are null.

    Ids lose blanks around them.
    """
    if foreign := sorted(set(frame.columns) - set(schema)):
        raise TypeError(f"a reader must give columns of the schema: got {', '.join(foreign)}; drop them in its build")
    frame = frame.select(
        (pl.col(name) if name in frame.columns else pl.lit(None)).cast(dtype, strict=False).alias(name)
        for name, dtype in schema.items()
    )
    texts = [name for name in ("patient_id", "visit_id") if name in schema]
    return frame.with_columns(pl.col(texts).str.strip_chars().replace("", None))


def _ledger(
    title: str,
    came: dict[str, int],
    by_reader: Iterable[Left],
    left: dict[str, dict[str, int]],
    tables: Iterable[str],
) -> Ledger:
    tables, by_reader = tuple(tables), tuple(by_reader)
    of_patients = tables == ("diagnoses",)
    for level in came:
        came[level] += sum(getattr(line, level) for line in by_reader)
    ledger = Ledger.start(title, **came)
    for line in by_reader:
        ledger.leave(line.rule, line.text, patients=line.patients, visits=line.visits, codes=line.codes)
    for rule, text in _RULES.items():
        counts = left[rule]
        ledger.leave(
            rule,
            text,
            patients=counts["patients"] * of_patients,
            visits=counts["visits"] * of_patients,
            codes=sum(counts[table] for table in tables),
        )
    return ledger
