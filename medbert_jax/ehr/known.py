"""What of a patient's record was known when a prediction was made: the one place that says so.

A visit is over with its discharge; a contact without one (anything but an inpatient stay) when it begins; a stay
without one is still open. Of a visit that was over its diagnoses were known, but for those with a time of their own
that lies after it: these with that time. Of one that was not over those with a time, as soon as it has come; what was
captured for the bill waits for the end of the visit. Two records that are equal up to a time say the same up to it.
"""

import polars as pl

from medbert_jax.ehr.schema import EhrTables

INPUT_COLUMNS = ("patient_id", "index_order", "input_until", "prediction_time", "over_by")
"""Of who is predicted: order of the index, of the last visit that had begun, the time, inclusive, and the latest
discharge that was one by then, which may be the admission of the index itself: a transfer."""
PREDICTION = ("patient_id", "prediction_time")
"""What names one prediction: of a folder of labels a patient may have several."""
UNBILLED = "unbilled_order"
"""Column beside those, of a cohort that asks for it: order of the visit of which no code of the bill was known."""

IS_OPEN = (pl.col("visit_type") == "inpatient").fill_null(False) & pl.col("discharge_time").is_null()
"""Per visit of a source with dates: is it a stay of which no end is known?"""
END = pl.when(~IS_OPEN).then(pl.coalesce("discharge_time", "admit_time"))
"""Per visit of a source with dates: when it was over; null: unknown, or never."""
_BILLED = pl.col("captured_at_billing").fill_null(False)
KNOWN_FROM = pl.when(_BILLED).then(pl.when(END.is_not_null()).then(pl.max_horizontal("time", END))).otherwise(
    pl.coalesce("time", END)
)  # fmt: skip
"""Per diagnosis, beside the columns of its visit: when it was known, if not with the end of the visit; null: never."""
_VISIT = ["patient_id", "visit_id"]


def input_visits(tables: EhrTables, until: pl.DataFrame) -> pl.DataFrame:
    """The visits that had begun, with the columns of `until` and `is_over`; what was not over has no end yet.

    `until` has `INPUT_COLUMNS`, one row per prediction. The visits of a patient with several come once for each.
    """
    visits = tables.visits.join(until, on="patient_id").filter(pl.col("order") <= pl.col("input_until"))
    if not tables.source.has_dates:  # there a visit before another is all that is known
        return visits.with_columns(is_over=True)
    is_over = ~IS_OPEN & (pl.col("discharge_time") <= pl.col("over_by")).fill_null(True)
    ends = pl.when("is_over").then(pl.col("discharge_time", "length_of_stay"))
    return visits.with_columns(is_over=is_over).with_columns(ends)


def input_diagnoses(tables: EhrTables, visits: pl.DataFrame) -> pl.DataFrame:
    """The diagnoses of `input_visits` that were known, in their order, with `order` of their visit and the time.

    Of a patient with several predictions they come once for each, told apart by `PREDICTION`.
    """
    beside = [name for name in ("order", "is_over", "discharge_time", "prediction_time", "index_order", UNBILLED)
              if name in visits.columns]  # fmt: skip
    time, ended = pl.col("time"), pl.col("discharge_time")
    known = (time <= pl.col("prediction_time")) & (pl.col("is_over") | ~_BILLED)
    known = known | (pl.col("is_over") & (time.is_null() | (time <= ended)))
    if UNBILLED in visits.columns:
        billed = pl.col("captured_at_billing").fill_null(True)
        known = known & ~(billed & (pl.col("order") == pl.col(UNBILLED)).fill_null(False))
    found = tables.diagnoses.join(visits.select(*_VISIT, *beside), on=_VISIT, maintain_order="left")
    return found.filter(known.fill_null(False)).select(*tables.diagnoses.columns, "order", "prediction_time")
