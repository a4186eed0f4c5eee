"""Results that are computed from others: the estimated glomerular filtration rate from creatinine, age and sex."""

import polars as pl

from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.schema import EhrTables

EGFR, EGFR_UNIT = "EGFR_CKD_EPI_2021", "mL/min/1.73m2"
DERIVED = "DERIVED"
"""The code system of what is computed here."""
_CREATININE = ("2160-0", "38483-4", "14682-9", "77140-2", "59826-8")
"""LOINC: in serum, plasma or blood, as mass or as substance."""
_MG_DL = {"mg/dl": 1.0} | dict.fromkeys(("umol/l", "\u00b5mol/l", "\u03bcmol/l", "micromol/l", "mcmol/l"), 1 / 88.4)
"""Unit, in small letters → mg/dL per unit."""
_DAYS_PER_YEAR = 365.25


def rows_with_derived(tables: EhrTables, spec: CohortSpec, name: str) -> pl.DataFrame | None:
    """The table of that name, if it is there; of measurements see `with_derived`."""
    table: pl.DataFrame | None = getattr(tables, name)
    return with_derived(tables, spec, table) if table is not None and name == "measurements" else table


def with_derived(tables: EhrTables, spec: CohortSpec, measurements: pl.DataFrame) -> pl.DataFrame:
    """The measurements, with those that a laboratory set of the spec names by `DERIVED/…`."""
    named = {code for one in spec.laboratory_sets or () for part in one.results for code in part.codes}
    if f"{DERIVED}/{EGFR}" not in named:
        return measurements
    return pl.concat([measurements, _egfr(tables, measurements)])


def _egfr(tables: EhrTables, measurements: pl.DataFrame) -> pl.DataFrame:
    """CKD-EPI 2021 (without race) of every creatinine in mg/dL or \u00b5mol/L of an adult whose sex is known.

    142 * min(Scr/k, 1)^a * max(Scr/k, 1)^-1.2 * 0.9938^age * 1.012 of a woman; k 0.7 and a -0.241 of women, 0.9 and
    -0.302 of men; Scr in mg/dL, age in whole years on the day of the result. A result in no unit, or another, says
    nothing.
    """
    unit = pl.col("unit").str.strip_chars().str.to_lowercase()
    rows = measurements.filter(pl.col("code_system") == "LOINC", pl.col("code").is_in(_CREATININE), pl.col("value") > 0)
    factor = unit.replace_strict(list(_MG_DL), list(_MG_DL.values()), default=None, return_dtype=pl.Float64)
    rows = rows.with_columns(creatinine=pl.col("value") * factor).drop_nulls("creatinine")
    people = tables.patients.select("patient_id", "birth_date", "sex").filter(pl.col("sex").is_in(["female", "male"]))
    visits = tables.visits.select("patient_id", "visit_id", "admit_time", "age_days")
    rows = rows.join(people, on="patient_id").join(visits, on=["patient_id", "visit_id"], how="left")
    day, born = pl.coalesce("time", "admit_time").dt.date(), pl.col("birth_date")
    birthday, today = (date.dt.month().cast(pl.Int32) * 100 + date.dt.day() for date in (born, day))
    years = day.dt.year() - born.dt.year() - (today < birthday).cast(pl.Int32)
    age = pl.coalesce(years.cast(pl.Float64), (pl.col("age_days") / _DAYS_PER_YEAR).floor())
    female = pl.col("sex") == "female"
    k, a = pl.when(female).then(0.7).otherwise(0.9), pl.when(female).then(-0.241).otherwise(-0.302)
    ratio = pl.col("creatinine") / k
    rate = 142 * ratio.clip(upper_bound=1).pow(a) * ratio.clip(lower_bound=1).pow(-1.2) * pl.lit(0.9938).pow(age)
    return rows.filter(age >= 18).with_columns(
        value=rate * pl.when(female).then(1.012).otherwise(1.0),
        code_system=pl.lit(DERIVED),
        code=pl.lit(EGFR),
        unit=pl.lit(EGFR_UNIT),
    ).select(measurements.columns)  # fmt: skip
