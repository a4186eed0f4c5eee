"""Scores of patients without labels: who may be predicted by the spec that the model was trained on, and how high."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import reduce
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.cohorts.meds_labels import GivenTimes
from medbert_jax.cohorts.missing_inputs import missing_inputs, tables_there
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.cohorts.unlabelled import unlabelled
from medbert_jax.data.joined import joined
from medbert_jax.disk.tables_on_disk import scan_parquet
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.ehr.tables import read_source
from medbert_jax.prediction.eligible import Eligible, Recipe, eligible_of
from medbert_jax.prediction.predictor import Predictor
from medbert_jax.prediction.validated import percentiles, recalibrated

AT_ONCE = 50_000
"""Predictions of a pass of the model, at least: shards of fewer are put together."""
SCHEMA: dict[str, pl.DataType] = {
    "subject_id": pl.String(),
    "prediction_time": pl.Datetime("us"),
    "probability": pl.Float64(),
    "recalibrated_probability": pl.Float64(),
    "percentile": pl.Int32(),
    "codes": pl.Int32(),
    "unknown_codes": pl.Int32(),
}
"""Column → dtype of `Scores.rows`; of a score there are neither recalibrated probabilities nor percentiles."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What was found of everybody."""

    rows: pl.DataFrame
    """Of SCHEMA, one for each prediction, shard by shard."""
    exits: pl.DataFrame
    """subject_id, rule: of everybody else the ledger's line."""
    ledger: Ledger
    unknown: pl.DataFrame
    """code, occurrences in the input: those that the vocabulary does not know, the commonest first."""
    source: EhrSource
    said: tuple[str, ...]
    """What the source does not say, and which rules are not asked."""


def score(
    predictor: Predictor,
    ehr: Path,
    *,
    patients: Collection[str] | None = None,
    times: pl.DataFrame | None = None,
    unknown_code_limit: float = 0.5,
    announce: Callable[[str], object] = lambda line: None,
) -> Scores:
    """Probabilities of all who may be predicted, or of those of `patients` alone. No label is looked for.

    `times` (patient_id, prediction_time) where the cohort has no index of its own: of a folder of labels, or matched.

    Raises ValueError for a source that cannot answer the spec, and where the vocabulary knows too little of it.
    """
    source = read_source(ehr)
    spec, said = asked_of(predictor, source, ehr, times)
    recipe = recipe_of(predictor)
    rows, exits, ledgers, unknown = [pl.DataFrame(schema=SCHEMA)], [], [], []
    for batch in _in_batches(eligible_of(ehr, spec, recipe, patients=patients)):
        unknown += [one.unknown for one in batch]
        check_unknown(batch, unknown_code_limit)
        rows.append(_scored(predictor, batch))
        exits += [one.exits for one in batch]
        ledgers += [one.ledger for one in batch]
        announce(f"{sum(map(len, rows)):,} predictions")
    return Scores(
        pl.concat(rows),
        pl.concat(exits),
        reduce(Ledger.merge, ledgers),
        _counted(pl.concat(unknown), "code"),
        source,
        tuple(said),
    )


def recipe_of(predictor: Predictor) -> Recipe:
    """How a record becomes a sequence of the model's."""
    return Recipe(predictor.serialization, predictor.vocabulary, predictor.about["back_off"])


def asked_of(
    predictor: Predictor, source: EhrSource, ehr: Path, times: pl.DataFrame | None
) -> tuple[CohortSpec | GivenTimes, list[str]]:
    """What decides whom and when, of patients without labels, and what has to be said of that."""
    if predictor.spec is None:
        if times is None:
            raise ValueError(
                "a model that was fine-tuned on a folder of MEDS labels is told when to predict: got no times; give"
                " --times FILE, with subject_id and prediction_time, or --at DAY"
            )
        return GivenTimes.of(times, predictor.about["cohort"]["name"]), []
    spec, left_out = unlabelled(predictor.spec, None if times is None else days_of(times))
    said = missing_inputs(spec, source, tables_there(ehr))
    if left_out:
        said.append(
            f"not asked of patients without labels, or in part: {', '.join(left_out)}, which the cohort asks of the"
            " label or of what comes after the prediction"
        )
    return spec, said


def days_of(times: pl.DataFrame) -> pl.DataFrame:
    """patient_id, given_date: the day that begins within 1 µs of a time, or that it lies in. ValueError for several of
    one patient."""
    if several := int(times["patient_id"].is_duplicated().sum()):
        raise ValueError(
            f"this cohort predicts a patient once: got {several} rows of patients with several times; keep one of each"
        )
    return times.select("patient_id", given_date=(pl.col("prediction_time") + timedelta(microseconds=1)).dt.date())


def at_day(ehr: Path, day: date) -> pl.DataFrame:
    """patient_id, prediction_time of everybody in the tables: the last moment before a day begins."""
    ids = scan_parquet(*sorted((Path(ehr) / "patients").glob("*.parquet"))).select("patient_id").collect()
    moment = datetime.combine(day, time(0)) - timedelta(microseconds=1)
    return ids.with_columns(prediction_time=pl.lit(moment, pl.Datetime("us")))


def _in_batches(parts: Iterable[Eligible]) -> Iterator[list[Eligible]]:
    batch: list[Eligible] = []
    for part in parts:
        batch.append(part)
        if sum(len(one.sequences) for one in batch) >= AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _scored(predictor: Predictor, batch: Sequence[Eligible]) -> pl.DataFrame:
    """The rows of SCHEMA of some shards."""
    sequences = joined([one.sequences for one in batch])
    if not len(sequences):
        return pl.DataFrame(schema=SCHEMA)
    probabilities = np.asarray(predictor.predict(sequences), np.float64)
    frame = pl.concat([one.rows.select(subject_id="patient_id", prediction_time="prediction_time") for one in batch])
    nothing = pl.lit(None)
    risks = recalibrated(probabilities, predictor.about["validation"]["recalibration"])
    ranks = percentiles(risks, predictor.about["validation"]["quantiles"])
    return frame.with_columns(
        probability=probabilities,
        recalibrated_probability=pl.Series(risks) if predictor.is_risk else nothing,
        percentile=pl.Series(ranks) if predictor.is_risk else nothing,
        codes=sequences.lengths,
        unknown_codes=np.concatenate([one.unknown_codes for one in batch]),
    ).cast(pl.Schema(SCHEMA))


def check_unknown(batch: Sequence[Eligible], limit: float) -> None:
    """Raise ValueError where the vocabulary does not know more than that share of the codes."""
    codes = sum(int(one.sequences.lengths.sum()) for one in batch)
    unknown = sum(int(one.unknown_codes.sum()) for one in batch)
    if unknown > limit * codes:
        system = pl.col("code").str.extract("^(.*?)/").alias("system")
        systems = _counted(pl.concat([one.unknown for one in batch]).with_columns(system), "system")
        of = ", ".join(f"{name} {count:,}" for name, count in systems.head(4).iter_rows())
        raise ValueError(
            f"at most {limit:.0%} of the codes may be unknown to the model's vocabulary: got {unknown / codes:.1%}"
            f" ({of}); pretrain and fine-tune on this source, fine-tune a cohort made with --back-off, or raise"
            " --unknown-code-limit"
        )


def _counted(unknown: pl.DataFrame, by: str) -> pl.DataFrame:
    """Occurrences of each, the commonest first."""
    counted = unknown.group_by(by).agg(pl.col("occurrences").sum())
    return counted.sort("occurrences", by, descending=[True, False])
