"""Which codes of a MEDS folder are one visit: by an id, between events of admission and discharge, or by the day."""

import polars as pl

from medbert_jax.ingest.readers.meds_options import MedsOptions
from medbert_jax.ingest.readers.mimic_iv import disposition, still_patient

VISIT_COLUMNS = ("visit_id", "hadm_id", "encounter_id")

STAY, _DAY = "stay/", "day/"
"""Beginnings of the ids of visits that the source gives no id."""
VISITS = {
    "column": "A visit is what one value of visit_id, hadm_id or encounter_id (the first that is there) names.",
    "events": "A visit is a stay: an admission event, up to the first discharge event after it and before the next "
    "admission, or up to the admission's column end.",
    "day": "A visit is a calendar day with diagnoses of the patient (visit ids that begin with day/), of unknown type "
    "and discharge.",
    "auto": "A code with a value in visit_id, hadm_id or encounter_id (the first that is there) belongs to the visit "
    "that it names; without one, to the stay whose time, from admission to discharge event, holds it. This is decided "
    "for each code alone, so that it is the same in all shards.",
}
WITHIN = "A code within no stay by its time belongs to a stay that includes its calendar day."
OUTSIDE = {
    "day": "Diagnoses outside such visits make one visit per calendar day (visit ids that begin with day/), of unknown "
    "type and discharge.",
    "none": "Codes outside such visits belong to no visit.",
}


def marked_visits(rows: pl.DataFrame, options: MedsOptions) -> pl.DataFrame:
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
            "still_patient": pl.Boolean,
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
        still_patient=of("discharge", still_patient(pl.col("value"))).any(),
    )
    return visits.explode("copies")


def _stays(marks: pl.DataFrame) -> pl.DataFrame:
    """Visits from admission events and the discharge events that follow them."""
    keys = ["patient_id", "time"]
    admissions, marks = marks.filter(pl.col("role") == "admission").select(keys), marks.drop_nulls(keys)
    began = marks.filter(pl.col("role") == "admission").sort(*keys, "code")
    began = began.group_by(keys).agg(pl.col("end").max(), visit_type=pl.col("system").first()).sort(keys)
    ended = marks.filter(pl.col("role") == "discharge").sort(*keys, "code")
    there = still_patient(pl.col("value")).any()
    ended = ended.group_by(keys).agg(to=disposition(pl.col("value")).drop_nulls().first(), there=there).sort(keys)
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
        visit_id=STAY + pl.col("time").dt.to_string("%Y-%m-%dT%H:%M:%S%.f"),
        admit_time="time",
        discharge_time=pl.when(later).then("at").otherwise(pl.coalesce("end", "at_same")),
        discharge_disposition=pl.when(later).then("to").otherwise("to_same"),
        still_patient=pl.when(later).then("there").otherwise("there_same"),
    )
    untimed = STAY + "untimed-" + pl.int_range(pl.len()).over("patient_id").cast(pl.String)
    return admissions.join(stays, on=keys, how="left").with_columns(
        visit_id=pl.when(pl.col("time").is_null()).then(untimed).otherwise("visit_id")
    )


def day_visits(codes: dict[str, pl.DataFrame]) -> pl.DataFrame:
    """Visits of calendar days with diagnoses, of codes that are linked, by table: the day's first event admits."""
    keys = ["patient_id", "visit_id"]
    events = pl.concat([table.select(*keys, "time") for table in codes.values()])
    days = codes["diagnoses"].select(keys).filter(pl.col("visit_id").str.starts_with(_DAY)).unique()
    return events.join(days, on=keys).group_by(keys).agg(admit_time=pl.col("time").min())


def on_such_days(codes: pl.DataFrame, days: pl.DataFrame) -> pl.DataFrame:
    """The codes, of no visit where their day has no diagnosis and so is none of `day_visits`."""
    keys = ["patient_id", "visit_id"]
    codes = codes.join(days.select(*keys, is_visit=True), on=keys, how="left")
    off = pl.col("visit_id").str.starts_with(_DAY) & pl.col("is_visit").is_null()
    return codes.with_columns(visit_id=pl.when(~off).then("visit_id")).drop("is_visit")


def linked(codes: pl.DataFrame, visits: pl.DataFrame, options: MedsOptions) -> pl.DataFrame:
    """The codes with visit_id: by its name, the stay around it, the day, in this order, as far as the options go."""
    by_name = options.visits in ("auto", "column")
    codes = codes.with_columns(visit_id=pl.col("named") if by_name else pl.lit(None, pl.String))
    if options.visits in ("auto", "events"):
        stays = visits.with_columns(discharge_time=pl.coalesce("discharge_time", "admit_time"))
        for unit in (pl.col, lambda name: pl.col(name).dt.truncate("1d")):
            codes = _within(codes, stays.with_columns(unit("admit_time"), unit("discharge_time")), unit("time"))
    if options.visits == "day" or options.outside == "day":
        on_day = _DAY + pl.col("time").dt.to_string("%Y-%m-%d")
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
