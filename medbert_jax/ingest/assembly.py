"""Rough tables of one shard → EHR tables and ledgers: the rules that every source goes through, in one order.

A reader maps its columns and leaves nulls; what is wrong with a row is found and counted here, so that the same fault
has the same rule id, whatever the source.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.ehr.codes import SOURCE, normal_codes, system_name
from medbert_jax.ehr.schema import EARLIEST, EVENT_TABLES, LATEST, SCHEMAS, TITLES_SCHEMA, EhrSource, EhrTables
from medbert_jax.ingest.deaths import one_death_each
from medbert_jax.ingest.ends import Calendar, open_stays
from medbert_jax.ingest.follow_up import follow_up_of
from medbert_jax.ingest.icd9_zeros import numeric_codes, with_zeros
from medbert_jax.ingest.linking import Unlinked, link_strays

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
_SEVERAL = "kept as written, since with and without lost zeros they are billable codes"
_VISIT_RULES = ("no_admission", "implausible_time", "before_birth", "after_death")
CONTRADICTED = "patients whose rows contradict each other in {}, which is unknown now"
"""What is told of a column of patients."""
_DEATH = ["patient_id", "death_date", "death_time"]
_OF_VISIT = ["rule", "visit"]
"""What rows of codes are told of their visit: by which rule it leaves, and its place among all by patient and id."""


@dataclass(frozen=True)
class Left:
    """What a reader itself took out, under a rule of its own."""

    rule: str
    text: str
    patients: int = 0
    visits: int = 0
    codes: int = 0


@dataclass(kw_only=True)
class Rough:
    """What a reader maps its columns to, before any rule. Columns as in `SCHEMAS`; absent ones are unknown.

    `patients` may have "birth_year" (only the year is known) and "split" (the source's own); `visits` has "order" only
    where the source has no dates, and "still_patient" where it says that somebody has not left; codes are as
    published. `deaths` (patient_id, death_date, death_time) are all rows that say when somebody died, `follow_up` all
    periods, which may overlap. `unlinked` is what becomes of diagnoses of no visit, by their "time". `other_ids` are
    the patient ids, row by row, of further tables that only add to `patients`: those without an id, and those not
    listed there, are counted like all others. `told` are counts for the user that no ledger has. `unknown_codes` are
    what the source calls codes and nobody knows (code, rows, patients, description), `titles` what its codes mean
    (code_system, code, title).
    """

    patients: pl.DataFrame
    visits: pl.DataFrame
    diagnoses: pl.DataFrame
    medications: pl.DataFrame | None = None
    measurements: pl.DataFrame | None = None
    procedures: pl.DataFrame | None = None
    deaths: pl.DataFrame | None = None
    follow_up: pl.DataFrame | None = None
    unlinked: Unlinked = "drop"
    has_dates: bool
    age_precision: str
    assumptions: tuple[str, ...] = ()
    left: tuple[Left, ...] = field(default=())
    other_ids: pl.Series = field(default_factory=lambda: pl.Series(dtype=pl.String))
    told: Counter[str] = field(default_factory=Counter)
    unknown_codes: pl.DataFrame | None = None
    titles: pl.DataFrame | None = None


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

    visits = count("null_visit_id", "visits", visits, visits.drop_nulls("visit_id"))
    visits, unreadable["discharge_time that is no end"] = open_stays(visits, calendar)
    deaths, told["patients with several days of death, of which the earliest counts"] = one_death_each(deaths, visits)
    patients = patients.join(deaths, on="patient_id", how="left", maintain_order="left")
    keys = ["patient_id", "visit_id"]
    time_order = ["order"] if not rough.has_dates else ["admit_time", "discharge_time"]
    visits = count("duplicate_visit", "visits", visits, _once_each(visits, time_order))
    lives = patients.select("patient_id", "birth_date", "birth_year", "death_date", "death_time")
    visits = visits.join(lives, on="patient_id", how="left", maintain_order="left")
    visits = _in_order(visits.with_columns(_rule_of_visit(rough.has_dates)), time_order)
    if rough.unlinked != "drop":
        linked = codes["diagnoses"].join(visits.select(*keys, *_OF_VISIT), on=keys, how="left")
        strays, linked = linked.filter(pl.col("rule").is_null()), linked.filter(pl.col("rule").is_not_null())
        strays, made, links = link_strays(strays.drop(_OF_VISIT), visits.filter(pl.col("rule") == -1), rough.unlinked)
        told += links
        if made.height:
            visits_in += made.height
            made = made.join(lives, on="patient_id", how="left").with_columns(_rule_of_visit(rough.has_dates))
            visits = _in_order(pl.concat([visits, made], how="diagonal").sort(keys), time_order)
            strays, linked = pl.concat([linked.select(strays.columns), strays]), linked.clear()
        strays = strays.join(visits.select(*keys, *_OF_VISIT), on=keys, how="left")
        codes["diagnoses"] = pl.concat([linked, strays.select(linked.columns)])
    icd9 = [numeric_codes()]
    for name, table in codes.items():
        table, pairs = _normal(table, restore_zeros)
        icd9.append(numeric_codes(pairs))
        codes[name] = _codes(name, table, visits.select(*keys, *_OF_VISIT), left, unreadable, told)
    systems = Counter(
        {(name, system): rows for name, table in codes.items()
         for system, rows in table["code_system"].value_counts().iter_rows()}
    ) + Counter({(name, SOURCE): left["unnamed_system"][name] for name in codes})  # fmt: skip
    for number, rule in enumerate(_VISIT_RULES):
        left[rule]["visits"] = int((visits["rule"] == number).sum())
    visits = visits.filter(pl.col("rule") == -1)
    visits = visits.with_columns(*_stays(rough.has_dates, outpatient_los_zero))

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
        titles=_titles(rough.titles, codes.values()),
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


def one_row_each(patients: pl.DataFrame) -> tuple[pl.DataFrame, Counter[str]]:
    """One row per patient, and the patients of whom rows contradict each other, by column: the value is unknown."""
    if not patients["patient_id"].is_duplicated().any():
        return patients, Counter()
    said = pl.exclude("patient_id").drop_nulls()
    rows = patients.group_by("patient_id", maintain_order=True)
    unlike = rows.agg(said.n_unique() > 1).drop("patient_id").sum().row(0, named=True)
    single = rows.agg(pl.when(said.n_unique() == 1).then(said.first()).name.keep())
    return single, +Counter({CONTRADICTED.format(column): count for column, count in unlike.items()})


def _once_each(visits: pl.DataFrame, time_order: list[str]) -> pl.DataFrame:
    """The visits by patient and id, of several rows with one id the first by time and then by all else."""
    keys = ["patient_id", "visit_id"]
    visits = visits.sort(keys, maintain_order=False)
    if not visits.select(pl.all_horizontal(pl.col(keys) == pl.col(keys).shift()).any()).item():
        return visits
    rest = [column for column in visits.columns if column not in (*keys, *time_order)]
    visits = visits.sort([*keys, *time_order, *rest], nulls_last=True, maintain_order=False)
    return visits.unique(keys, keep="first", maintain_order=True)


def _in_order(visits: pl.DataFrame, time_order: list[str]) -> pl.DataFrame:
    """Visits that are in order of patient and id, numbered so as `visit`: now by patient, time and id, null last."""
    visits = visits.drop("visit", strict=False).with_row_index("visit")
    times = [visits[name].to_physical().cast(pl.Int64).fill_null(np.iinfo(np.int64).max) for name in time_order]
    # Several times as fast as sorting a table by text; it keeps what is equal in order.
    order = np.lexsort([*(time.to_numpy() for time in reversed(times)), visits["patient_id"].rle_id().to_numpy()])
    return visits[order]


def _rule_of_visit(has_dates: bool) -> pl.Expr:
    """The first rule (place in _VISIT_RULES) by which a visit leaves; −1 for none."""
    admitted = pl.col("admit_time")
    if not has_dates:
        return pl.lit(-1, pl.Int8).alias("rule")
    outside = (admitted < EARLIEST) | (admitted >= LATEST)
    born = (admitted.dt.date() < pl.col("birth_date")) | (admitted.dt.year() < pl.col("birth_year")).fill_null(False)
    died = (admitted > pl.col("death_time")).fill_null(admitted.dt.date() > pl.col("death_date"))
    rules = (admitted.is_null(), outside, born, died)
    rule = pl.lit(-1, pl.Int8)
    for number, applies in reversed(list(enumerate(rules))):
        rule = pl.when(applies.fill_null(False)).then(pl.lit(number, pl.Int8)).otherwise(rule)
    return rule.alias("rule")


def _stays(has_dates: bool, outpatient_los_zero: bool) -> list[pl.Expr]:
    """Order, length of stay and age of visits that are sorted by patient and time."""
    admitted, discharged = pl.col("admit_time").dt.date(), pl.col("discharge_time").dt.date()
    stay = pl.coalesce(pl.col("length_of_stay"), (discharged - admitted).dt.total_days())
    if outpatient_los_zero:
        stay = pl.when((pl.col("visit_type") == "outpatient") & stay.is_null()).then(0).otherwise(stay)
    patient = pl.col("patient_id").rle_id()
    before = patient.search_sorted(patient)  # visits of patients that come before
    exprs = [
        (pl.int_range(1, pl.len() + 1) - before).cast(pl.Int32).alias("order"),
        stay.cast(pl.Int32).alias("length_of_stay"),
    ]
    if has_dates:
        year_only = pl.col("birth_year").is_not_null() & pl.col("birth_date").is_null()
        since_july = (admitted - pl.date(pl.col("birth_year"), 7, 1)).dt.total_days().clip(lower_bound=0)
        exprs += [
            pl.when(year_only).then(since_july.cast(pl.Int32)).otherwise("age_days").alias("age_days"),
            pl.when(year_only).then(pl.lit(365, pl.Int32)).otherwise("age_precision_days").alias("age_precision_days"),
        ]
    return exprs


def _normal(table: pl.DataFrame, restore_zeros: bool) -> tuple[pl.DataFrame, pl.DataFrame]:
    """A table of codes with named systems, `normal` forms, their `place` in order of both, and `several`.

    Second, the distinct code_system and code with their rows.
    """
    # Few distinct codes, many rows: the normal form is found once per code.
    table = table.rename({"code_system": "its_system", "code": "its_code"})
    pairs = table.group_by("its_system", "its_code").agg(rows=pl.len())
    system = pl.col("its_system").str.strip_chars().str.replace_all(r"[\s/]+", "_").replace("", None)
    written = pl.col("its_code").str.replace_all(r"\s+", " ").str.strip_chars().replace("", None)
    pairs = pairs.with_columns(code_system=pl.coalesce(system_name(system), system), code=written)
    names = ["code_system", "code"]
    distinct = pairs.group_by(names).agg(pl.col("rows").sum())
    codes = distinct.select(names)
    read = with_zeros(codes) if restore_zeros else codes.with_columns(read="code", several=False)
    normal = normal_codes(read.select("code_system", code="read").unique()).rename({"code": "read"})
    normal = normal.with_columns(place=pl.struct("code_system", "normal").rank("dense"))
    read = read.join(normal, on=["code_system", "read"], how="left", nulls_equal=True).drop("read")
    pairs = pairs.drop("rows").join(read, on=names, how="left", nulls_equal=True)
    as_written = ["its_system", "its_code"]
    return table.join(pairs, on=as_written, how="left", nulls_equal=True).drop(as_written), distinct


def _codes(
    name: str,
    table: pl.DataFrame,
    visits: pl.DataFrame,
    left: dict[str, dict[str, int]],
    unreadable: Counter[str],
    told: Counter[str],
) -> pl.DataFrame:
    """The rows of a table of codes that stay, codes in normal form; the others counted under their first rule."""
    if "rule" not in table.columns:
        table = table.join(visits, on=["patient_id", "visit_id"], how="left")
    of_no_visit = pl.col("rule").is_null()
    if name == "diagnoses":
        unlinked = of_no_visit
    else:  # an event may stand without a visit: its time says where it belongs
        unreadable[f"visit_id of {name}"] += int(
            table.select((of_no_visit & pl.col("visit_id").is_not_null()).sum()).item()
        )
        table = table.with_columns(visit_id=pl.when(~of_no_visit).then("visit_id"), rule=pl.col("rule").fill_null(-1))
        unlinked = pl.lit(False)
    reasons = {rule: pl.col("rule") == number for number, rule in enumerate(_VISIT_RULES)} | {
        "unlinked_code": unlinked,
        "missing_code": pl.col("code").is_null(),
        "unnamed_system": pl.col("code_system") == SOURCE,
        "unreadable_code": pl.col("normal").is_null() | pl.col("code_system").is_null(),
    }
    reason = pl.lit(None, pl.String)
    for rule, applies in reversed(reasons.items()):
        reason = pl.when(applies.fill_null(False)).then(pl.lit(rule)).otherwise(reason)
    table = table.with_columns(reason=reason)
    for rule, rows in table["reason"].drop_nulls().value_counts().iter_rows():
        left[rule][name] += rows
    table = table.filter(pl.col("reason").is_null())
    zeros = pl.col("normal").str.starts_with("0") & ~pl.col("code").str.starts_with("0")
    for what, rows in (("whose leading zeros were put back", zeros), (_SEVERAL, "several")):
        for system, count in table.filter(rows)["code_system"].value_counts().iter_rows():
            told[f"{system} codes {what}"] += count
    table = table.with_columns(code="normal")
    kept = _earliest(table) if name == "diagnoses" else table.select(SCHEMAS[name].keys()).unique(maintain_order=False)
    left["duplicate_code"][name] += table.height - kept.height
    return kept


def _earliest(table: pl.DataFrame) -> pl.DataFrame:
    """Diagnoses in order of visit and code, of rows that differ in their time alone the earliest: it was known then."""
    diagnoses = table.select(SCHEMAS["diagnoses"].keys())
    key = table.select(pl.col("visit").cast(pl.UInt64) * 2**32 + pl.col("place")).to_series().to_numpy()
    order = np.argsort(key)
    again = np.flatnonzero(np.diff(key[order]) == 0)
    if len(again):  # of one visit and code: the few rows of which some may differ in their time alone
        several = np.union1d(again, again + 1)
        rows = diagnoses[order[several]].with_row_index("row").sort("time", nulls_last=True)
        first = rows.unique([name for name in diagnoses.columns if name != "time"], keep="first")["row"].to_numpy()
        order = np.delete(order, np.delete(several, first))
    return diagnoses[order]


def _titles(written: pl.DataFrame | None, tables: Iterable[pl.DataFrame]) -> pl.DataFrame:
    """code_system, code, title of the codes in the tables, each once, codes in normal form."""
    names = ["code_system", "code"]
    if written is None:
        return pl.DataFrame(schema=TITLES_SCHEMA)
    written = written.with_columns(pl.col("title").str.replace_all(r"\s+", " ").str.strip_chars().replace("", None))
    written = written.drop_nulls().unique().sort(pl.all()).unique(names, keep="first", maintain_order=True)
    written = _normal(written, restore_zeros=False)[0].select("code_system", "title", code="normal").drop_nulls()
    written = written.unique(names, keep="first", maintain_order=True)
    used = pl.concat([table.select(names) for table in tables]).unique()
    return written.join(used, on=names, how="semi").select(TITLES_SCHEMA.keys())


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
