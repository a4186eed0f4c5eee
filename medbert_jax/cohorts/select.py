"""A cohort of one shard of EHR tables: who is in, label, index, input, ledger."""

import functools

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.drawn_apart import drawn_apart
from medbert_jax.cohorts.judging import Exit, judge
from medbert_jax.cohorts.leakage import check_no_leak
from medbert_jax.cohorts.matching import SET_ID
from medbert_jax.cohorts.meds_labels import NOT_LABELLED, SEVERAL_TIMES, LabelFolder, judge_labelled
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.ehr.known import PREDICTION, UNBILLED, input_diagnoses, input_visits
from medbert_jax.ehr.schema import EhrTables

_FLAG = "flag_"
UNKNOWN = -1
"""The label of who is censored: neither a case nor a control."""


def select_cohort(
    tables: EhrTables, spec: CohortSpec | LabelFolder, split: np.ndarray | None = None
) -> tuple[pl.DataFrame, Ledger]:
    """The cohort's patients, one row each, sorted by patient_id, and the attrition ledger; or one row per prediction,
    sorted by `PREDICTION`, where `spec` is a folder of labels that takes all times.

    Columns: patient_id; label Int32; index_order Int32; input_until Int32, the last visit order that may be
    read, inclusive; index_day Int32, calendar days from the first visit's admission to the index visit's (−1
    unknown); prediction_time Datetime("us"), 1 µs before the index admission or, through the index, its
    discharge (a source without dates: 1970-01-01 + index_order days); over_by Datetime("us"), the latest discharge
    that was one by then, and unbilled_order Int32, where the spec waits for the bill (`ehr.known`); weight Float64, how
    many patients one who was drawn stands for (1.0 where nobody was drawn); set_id UInt64, in a matched cohort: a case
    and his controls have one; event_day, death_day and
    censored_day Int32 (null: none), of outcomes in a time at risk: days to what came first, from the prediction, of a
    readmission from the discharge; competing_death Boolean, where death competes; flag_<id> Boolean per rule
    that flags; flag_age_uncertain Boolean, where a rule judges ages: the source tells the age too roughly for it;
    flag_joined_stays Boolean, where the spec counts episodes: the index joins several stays. In a matched
    cohort the index is a date: index_order is input_until + 1, and the prediction time 1 µs before the date.

    Everyone who leaves is counted once, with visits and codes, under the first rule that applied. The visits
    after the input of those who stay have a line of their own, and so have those after a death, whosever they are:
    what the ledger keeps is what may be read.
    On dated sources the input ends before the first visit that had not begun at the prediction time, too; which
    diagnoses of the others were known says `ehr.known`.

    Of a folder of labels in place of a spec see `judge_labelled`. Where all its times are taken the ledger counts
    predictions too: a patient leaves with his last one, and after the line of who has no label a line of its own says
    how much is read again, so that from there on visits and codes count once for each prediction.

    With `split`, (patients,) of the rows of `tables.patients`, the sets of a matched cohort are drawn within it
    (`drawn_apart`).

    Raises ValueError for a rule that the source cannot decide, RuntimeError for a leak, which is a fault of this code.
    """
    parts = [select_with_exits(part, spec)[:2] for part in drawn_apart(tables, spec, split)]
    frames, ledgers = zip(*parts, strict=True)
    return pl.concat(frames).sort(PREDICTION), functools.reduce(Ledger.merge, ledgers)


def select_with_exits(tables: EhrTables, spec: CohortSpec | LabelFolder) -> tuple[pl.DataFrame, Ledger, pl.DataFrame]:
    """As `select_cohort`, nobody kept apart; and patient_id, leaves_under of who is not among the rows."""
    if isinstance(spec, LabelFolder):
        patients, lines = judge_labelled(tables, spec)
        flags = {} if spec.all_times else {SEVERAL_TIMES: f"rule:{SEVERAL_TIMES}"}
        facts, tag = (), "ours"
    else:
        patients, lines = judge(tables, spec)
        facts, tag = spec.outcome.facts(tables.source.has_dates), spec.input.tag
        flags = {rule.id: f"rule:{rule.id}" for rule in spec.rules if rule.action == "flag"}
        flags |= {"age_uncertain": "age_uncertain"} if spec.judges_age else {}
        flags |= {"joined_stays": "joined_stays"} if spec.episodes is not None else {}
    frame = (
        patients.filter(pl.col("leaves_under").is_null())
        .select(
            "patient_id",
            pl.col("label").cast(pl.Int32).fill_null(UNKNOWN),
            pl.col("index_order").cast(pl.Int32),
            pl.col("input_until").cast(pl.Int32),
            pl.col("index_day").fill_null(-1).cast(pl.Int32),
            pl.col("prediction_time", "over_by").cast(pl.Datetime("us")),
            pl.col("weight").cast(pl.Float64),
            *(pl.col(name).cast(pl.Int32) for name in (UNBILLED,) if name in patients.columns),
            *(pl.col(name) for name in (SET_ID,) if name in patients.columns),
            *facts,
            *(pl.col(column).fill_null(False).alias(_FLAG + id) for id, column in flags.items()),
        )
        .sort(PREDICTION)
    )
    all_times = isinstance(spec, LabelFolder) and spec.all_times
    ledger = _count_attrition(tables, patients, lines, spec.name, tag, all_times=all_times)
    if isinstance(spec, CohortSpec):
        check_no_leak(tables, frame, spec)
    # Counted afresh from the tables: what a reader of the frame will find.
    readable = input_visits(tables, frame)
    codes = input_diagnoses(tables, readable).height
    predictions = frame.height if all_times else 0
    kept = frame["patient_id"].n_unique()
    ledger.check(patients=kept, visits=readable.height, codes=codes, predictions=predictions)
    return frame, ledger, patients.drop_nulls("leaves_under").select("patient_id", "leaves_under")


def count_flagged(frame: pl.DataFrame) -> dict[str, int]:
    """How many patients of `select_cohort`'s frame each flag marks: its id → patients."""
    flags = [name for name in frame.columns if name.startswith(_FLAG)]
    return {name.removeprefix(_FLAG): int(frame[name].sum()) for name in flags}


def _count_attrition(
    tables: EhrTables, patients: pl.DataFrame, lines: list[Exit], name: str, tag: str, *, all_times: bool
) -> Ledger:
    """The ledger of the lines, and of what comes after the input, which `tag` says who ends.

    `patients` has a row for each, or for each prediction where `all_times` are taken.
    """
    ledger = Ledger.start(
        f"{tables.source.format} → {name}",
        patients=tables.patients.height,
        visits=tables.visits.height,
        codes=tables.diagnoses.height,
    )
    counted = ("visits", "codes", "read_visits", "begun_codes", "read_codes")
    of_one = {"is_first": pl.lit(True), "is_last": pl.lit(True)}
    if all_times:
        of_one = {"is_first": pl.col("patient_id").is_first_distinct(), "is_last": _leaves_with(lines)}
    patients = patients.with_columns(**of_one)
    labelled = (pl.col("leaves_under") != NOT_LABELLED).fill_null(True) & all_times
    counts = [pl.col("is_last").sum().alias("patients"), pl.col(counted).sum(), labelled.sum().alias("predictions")]
    left = {row["leaves_under"]: row for row in patients.group_by("leaves_under").agg(counts).iter_rows(named=True)}
    once = patients.filter("is_first")
    ledger.leave(
        "after_death",
        "Visits that begin after the death",
        visits=int(once["late_visits"].sum()),
        codes=int(once["late_codes"].sum()),
    )
    nothing = dict.fromkeys(("patients", *counted, "predictions"), 0)
    for line in lines:
        of = left.get(line.id, nothing)
        levels = ("patients", "visits", "codes", "predictions")
        ledger.leave(line.id, line.text, tag=line.tag, **{level: of[level] for level in levels})
        if line.id == NOT_LABELLED and all_times:
            again = patients.filter(~pl.col("is_first")).select(pl.col("visits", "codes").sum()).row(0, named=True)
            text = "The record of each of the others is read once for each of his labels"
            predictions = sum(of["predictions"] for of in left.values())
            ledger.read_again("each_prediction", text, predictions=predictions, **again)
    kept = left.get(None, nothing)
    ledger.leave(
        "outside_input",
        "Visits that come after the input of those who stay",
        tag=tag,
        visits=kept["visits"] - kept["read_visits"],
        codes=kept["codes"] - kept["begun_codes"],
    )
    text = "Diagnoses of visits before the prediction that were known only after it, or nobody knows when"
    ledger.leave("known_later", text, codes=kept["begun_codes"] - kept["read_codes"])
    return ledger


def _leaves_with(lines: list[Exit]) -> pl.Expr:
    """Per row: does the patient leave with it, or stay with it? Of several predictions that of the last line."""
    place = pl.col("leaves_under").replace_strict(
        [line.id for line in lines], range(len(lines)), default=len(lines), return_dtype=pl.Int64
    )
    is_last = place == place.max().over("patient_id")
    return is_last & pl.struct("patient_id", "leaves_under").is_first_distinct()
