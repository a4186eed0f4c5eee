"""Reader of the raw table of the original project (ZhiGroup/Med-BERT): one text file, tabs, seven columns.

The columns are known by their places, since the header's names differ from site to site: patient, admission date,
discharge date, code, present on admission, diagnosis priority, third-party indicator.
"""

from dataclasses import dataclass

import polars as pl

from medbert_jax.ehr.codes import EITHER, guess_icd_version, system_name
from medbert_jax.ingest.reader import RawTable, Reader, SourceOptions, day, flag, text, whole
from medbert_jax.ingest.rough import Left, Rough


@dataclass(frozen=True)
class MedBertOptions(SourceOptions):
    """What the original project's files leave open."""

    us_icd: bool = False
    """Whether ICD codes that do not say their version (I50.9, ICD_I50.9) are those of a US site: read as ICD-9-CM or
    ICD-10-CM, by their shape and, where both have such a code (V27.0), by the day of discharge, which must then be of a
    real calendar. Else I50.9 is a code of no system and leaves, counted, and ICD is a system of its own."""


CODE_ASSUMPTION = (
    "ICD9_150.6 is ICD-9-CM, ICD10_C50 is ICD-10-CM; another word before the first underscore is taken as the name of "
    "the code's system; a code without one is of no known system, and leaves under unreadable_code unless the option "
    "us_icd says more."
)
US_ICD = (
    "Codes whose ICD version the source does not say are of a US site: their shape tells ICD-9-CM from ICD-10-CM. "
    "Where both have such a code (V27.0), it is ICD-10-CM from 2015-10-01 on, by the day of discharge or service; "
    "without a day before 2100 it leaves under undecided_version."
)
ASSUMPTIONS = (
    "The seven columns are taken by place, whatever the header calls them: patient, admission date, discharge date, "
    "code, present on admission, diagnosis priority, third-party indicator.",
    "A visit is all rows of a patient with the same admission and discharge date (as written, where that is no date); "
    "visit_rule discharge_date of the "
    "serialization merges visits that end on one day, as the released code does.",
    CODE_ASSUMPTION,
    "Present on admission is true for 1, Y, YES, T, TRUE, false for 0, N, NO, F, FALSE, and unknown for anything else: "
    "the 6 of the published example has no published meaning. The released code sorts this column ascending, so 0 "
    "comes before 1 there; the paper puts present on admission first, and so does the serialization.",
    "The third-party indicator says that a code was captured only at billing.",
    "Birth, sex, race, death, type of visit and way of discharge are unknown.",
)


def split_code(code: pl.Expr) -> tuple[pl.Expr, pl.Expr]:
    """Code system and code of texts such as "ICD10_C50"; the system is null where there is no underscore."""
    word = code.str.extract(r"^\s*([^_\s]+)\s*_").str.to_uppercase()
    # Of the original project's site: its ICD-10 is that of the US.
    system = pl.coalesce(system_name(word).replace({"ICD10": "ICD10CM"}), word)
    return system, pl.when(system.is_null()).then(code).otherwise(code.str.replace(r"^[^_]*_", ""))


def tell_version(diagnoses: pl.DataFrame, day: pl.Expr | None = None) -> tuple[pl.DataFrame, Left]:
    """Diagnoses of a US site, of system null or ICD where the version is not said, with the systems of that version.

    Second, what left: codes of both versions that no `day` (of discharge or service) decides.
    """
    system = pl.col("code_system")
    unsaid = system.is_null() | (system == "ICD")
    told = diagnoses.with_columns(code_system=pl.when(unsaid).then(guess_icd_version(pl.col("code"), day))
                                  .otherwise(system))  # fmt: skip
    kept = told.filter(pl.col("code_system").ne_missing(EITHER))
    text = "Codes of both ICD-9-CM and ICD-10-CM that nothing decides"
    return kept, Left("undecided_version", text, codes=told.height - kept.height)


def _as_read(written: pl.Series) -> pl.Series:
    """The day as text, or what is written where it is none."""
    days = day(written).cast(pl.String)
    return days.zip_with(days.is_not_null(), text(written))


def build(raw: dict[str, pl.DataFrame], options: MedBertOptions) -> Rough:
    """The rows of one shard as rough tables."""
    table = raw["data_file"]
    priority, poa = whole(table["priority"]), text(table["poa"])
    system, code = split_code(pl.col("published"))
    rows = pl.DataFrame(
        {
            "patient_id": table["patient"],
            "admit_time": day(table["admit"]).cast(pl.Datetime("us")),
            "discharge_time": day(table["discharge"]).cast(pl.Datetime("us")),
            "from": _as_read(table["admit"]),
            "until": _as_read(table["discharge"]),
            "published": text(table["code"]),
            "present_on_admission": flag(poa.set(poa == "6", None)),  # the example published is full of it
            "captured_at_billing": flag(table["third_party"]),
            "priority": priority.set(priority.abs() >= 2**31, None),
        }
    ).with_columns(code_system=system, code=code)
    # Unlike texts that are no dates are not one date, though both are unknown.
    stay = ["patient_id", "admit_time", "discharge_time", "from", "until"]
    visits = (
        rows.select(stay)
        .unique()
        .sort(stay, nulls_last=True)
        .with_columns(pl.int_range(1, pl.len() + 1).over("patient_id").alias("number"))
        # The id is unique in the whole source and says nothing of the dates.
        .with_columns(visit_id=pl.concat_str("patient_id", "number", separator="-", ignore_nulls=True))
    )
    diagnoses, left = rows.join(visits, on=stay, how="left", nulls_equal=True), ()
    if options.us_icd:
        diagnoses, *left = tell_version(diagnoses, pl.coalesce("discharge_time", "admit_time"))
    columns = ("code_system", "code", "present_on_admission", "captured_at_billing", "priority")
    return Rough(
        patients=rows.select("patient_id").drop_nulls().unique(maintain_order=True),
        visits=visits.drop("number", "from", "until"),
        diagnoses=diagnoses.select("patient_id", "visit_id", *columns),
        has_dates=True,
        age_precision="unknown",
        assumptions=(*ASSUMPTIONS, *[US_ICD] * options.us_icd),
        left=tuple(left),
    )


MED_BERT_TSV = Reader(
    format="med-bert-tsv",
    tables=(
        RawTable(
            "data_file",
            patient="patient",
            required=("patient", "admit", "discharge", "code", "poa", "priority", "third_party"),
            files=("*.tsv", "*.tsv.gz"),
            separator="\t",
            by_position=True,
            times=("admit", "discharge"),
            stay=("admit", "discharge"),
        ),
    ),
    build=build,
    options=MedBertOptions,
)
