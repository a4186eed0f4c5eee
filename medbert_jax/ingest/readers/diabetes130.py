"""Reader of "Diabetes 130-US hospitals for years 1999–2008" (UCI 296; Strack et al. 2014; CC BY 4.0).

One row is one inpatient encounter of a diabetic patient, out of Cerner Health Facts, the paper's own source
database. All columns are text as published. There are no dates: encounters are in time order by
`encounter_id`, nothing more.
"""

import polars as pl

from medbert_jax.ingest.reader import RawTable, Reader, SourceOptions, text
from medbert_jax.ingest.rough import Rough

DRUGS = (
    "metformin", "repaglinide", "nateglinide", "chlorpropamide", "glimepiride", "acetohexamide", "glipizide",
    "glyburide", "tolbutamide", "pioglitazone", "rosiglitazone", "acarbose", "miglitol", "troglitazone",
    "tolazamide", "examide", "citoglipton", "insulin", "glyburide-metformin", "glipizide-metformin",
    "glimepiride-pioglitazone", "metformin-rosiglitazone", "metformin-pioglitazone",
)  # fmt: skip
ASSUMPTIONS = (
    "Encounters of a patient are in time order by numeric encounter_id; there are no dates.",
    "length_of_stay is time_in_hospital, 1 to 14 whole days; every encounter is an inpatient stay.",
    "Age is a ten-year band: age_days is its midpoint, age_precision_days its width; no birth date is known.",
    "Sex and race are the first known value in the patient's encounters; Unknown/Invalid and ? are unknown.",
    "Priority is 1, 2, 3 for diag_1 (principal), diag_2, diag_3; present on admission and captured at "
    "billing are unknown; at most three diagnoses of an encounter are published.",
    "ICD-9-CM codes that lost leading zeros get them back (8 is 008, 41 is 041); decimals are as published, "
    "on 250.xx and 365.44 only, without trailing zeros (250.6 stands for 250.60, 250 may be 250.00).",
    "A code published twice in one encounter is twice in the diagnoses; serialization keeps its first place.",
    "Discharge dispositions 11, 19, 20, 21 are expired, 13, 14 hospice, 1, 6, 8 home, transfers facility, "
    "7, 9, 12, 16, 17 other, 18, 25, 26 unknown. The death date is unknown. Encounters published after one "
    "that ended in death are kept.",
    "readmitted_30d is true for readmitted <30; an encounter that ended in death has false, as published.",
    "A drug column other than No is one medication by name; dose changes (Steady, Up, Down) are not kept, "
    "the time within the encounter is unknown.",
    "A1C and serum glucose are bands, not values: the band is in the measurement's code (A1C >8), value and "
    "unit are unknown; None means not measured.",
    "Not read: weight, payer, specialty, admission type and source, counts of procedures, drugs, visits.",
)

_DISPOSITIONS = {
    "home": (1, 6, 8),
    "facility": (2, 3, 4, 5, 10, 15, 22, 23, 24, 27, 28, 29, 30),
    "expired": (11, 19, 20, 21),
    "hospice": (13, 14),
    "other": (7, 9, 12, 16, 17),  # against advice, still a patient, outpatient services
    None: (18, 25, 26),
}
_BANDS = {"A1Cresult": "A1C", "max_glu_serum": "max_glu_serum"}
_DIAGNOSES = ("diag_1", "diag_2", "diag_3")
# What a cell may say where it says something.
_ALLOWED = {
    "encounter_id": r"\d{1,18}",
    "patient_nbr": r"\d{1,18}",
    "age": r"\[\d{1,3}-\d{1,3}\)",
    "time_in_hospital": r"\d{1,4}",
    "gender": r"Female|Male|Unknown/Invalid",
    "race": r".*[A-Za-z].*",
    "discharge_disposition_id": "|".join(str(number) for group in _DISPOSITIONS.values() for number in group),
    "readmitted": r"<30|>30|NO",
    **dict.fromkeys(_BANDS, r"None|Norm|>\d+"),
    **dict.fromkeys(DRUGS, r"No|Steady|Up|Down"),
}
_COLUMNS = (*_ALLOWED, *_DIAGNOSES)
_DAYS_PER_YEAR = 365.25


def build(raw: dict[str, pl.DataFrame], options: SourceOptions) -> Rough:
    """The rows of one shard as rough tables.

    Raises ValueError where a column has values that the published file has not, all listed; ids that are missing or
    there twice are left to the rules of every source.
    """
    table = raw["diabetic_data"]
    rows = pl.DataFrame({column: text(table[column.lower()]) for column in _COLUMNS})
    rows = rows.with_columns(pl.all().replace("?", None))
    never_unknown = ("age", "time_in_hospital")
    unexpected = rows.select(
        (~pl.col(column).str.contains(f"^(?:{allowed})$")).fill_null(column in never_unknown).sum()
        for column, allowed in _ALLOWED.items()
    ).row(0, named=True)
    faults = [f"column {column} has unexpected values in {n:,} rows" for column, n in unexpected.items() if n]
    if faults:
        raise ValueError(
            "diabetes130 is read from diabetic_data.parquet or diabetic_data.csv, with its columns as published: got a "
            f"file with {len(faults)} fault(s) [unexpected_value]:\n  - "
            + "\n  - ".join(faults)
            + "\ngive the file of UCI data set 296, unchanged"
        )
    return _rough(rows)


def _rough(rows: pl.DataFrame) -> Rough:
    """Checked rows, in any order, as rough tables; codes as published, null where the field is empty."""
    encounters = (
        rows.with_columns(pl.col("gender").replace("Unknown/Invalid", None))
        .sort(pl.col("encounter_id").cast(pl.Int64))
        .with_columns(
            pl.int_range(1, pl.len() + 1, dtype=pl.Int32).over("patient_nbr").alias("order"),
            pl.col("age").str.extract(r"\[(\d+)-").cast(pl.Int32).alias("low"),
            pl.col("age").str.extract(r"-(\d+)\)").cast(pl.Int32).alias("high"),
        )
    )
    visits = encounters.select(
        pl.col("encounter_id").alias("visit_id"),
        pl.col("patient_nbr").alias("patient_id"),
        pl.col("order"),
        pl.col("time_in_hospital").cast(pl.Int32).alias("length_of_stay"),
        pl.lit("inpatient").alias("visit_type"),
        ((pl.col("low") + pl.col("high")) / 2 * _DAYS_PER_YEAR).cast(pl.Int32).alias("age_days"),
        ((pl.col("high") - pl.col("low")) * _DAYS_PER_YEAR).cast(pl.Int32).alias("age_precision_days"),
        pl.col("discharge_disposition_id")
        .replace_strict(
            {str(number): name for name, numbers in _DISPOSITIONS.items() for number in numbers},
            default=None,
            return_dtype=pl.String,
        )
        .alias("discharge_disposition"),
        (pl.col("readmitted") == "<30").alias("readmitted_30d"),
    )
    patients = (
        encounters.drop_nulls("patient_nbr")
        .group_by(patient_id="patient_nbr", maintain_order=True)
        .agg(
            pl.col("gender").str.to_lowercase().drop_nulls().first().alias("sex"),
            pl.col("race").drop_nulls().first(),
        )
    )
    diagnoses = _long(encounters, _DIAGNOSES).with_columns(
        code_system=pl.lit("ICD9CM"), priority=pl.col("column").str.strip_prefix("diag_").cast(pl.Int32)
    )
    drugs = _long(encounters, DRUGS).filter(pl.col("code") != "No")
    bands = _long(encounters, tuple(_BANDS)).filter(pl.col("code") != "None")
    bands = bands.with_columns(code=pl.col("column").replace_strict(_BANDS) + " " + pl.col("code"))
    return Rough(
        patients=patients,
        visits=visits,
        diagnoses=diagnoses.drop("column"),
        medications=drugs.with_columns(code_system=pl.lit("name"), code="column", ingredient="column").drop("column"),
        measurements=bands.with_columns(code_system=pl.lit("name")).drop("column"),
        has_dates=False,
        age_precision="ten-year bands",
        assumptions=ASSUMPTIONS,
    )


def _long(encounters: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
    """One row per encounter and column: patient_id, visit_id, column, code (what stands there)."""
    return encounters.select(
        pl.col("patient_nbr").alias("patient_id"), pl.col("encounter_id").alias("visit_id"), *columns
    ).unpivot(columns, index=["patient_id", "visit_id"], variable_name="column", value_name="code")


DIABETES130 = Reader(
    format="diabetes130",
    tables=(
        RawTable(
            "diabetic_data",
            patient="patient_nbr",
            required=tuple(column.lower() for column in _COLUMNS),
            codes=_DIAGNOSES,
            names=tuple(column.lower() for column in _BANDS),  # None is published: not measured
        ),
    ),
    build=build,
)
