"""From EHR tables to the sequences of those who may be predicted, and where everybody else was lost."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.attrition.ledger import Counts, Ledger, LedgerLine
from medbert_jax.cohorts.drawn_apart import only_of
from medbert_jax.cohorts.meds_labels import LabelFolder
from medbert_jax.cohorts.select import select_with_exits
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.sequences import PatientSequences, sums_within
from medbert_jax.data.serialization import IN_LEDGER, SerializationConfig, order_histories, with_vocabulary
from medbert_jax.data.vocabulary import UNK, Vocabulary
from medbert_jax.ehr.icd import back_off
from medbert_jax.ehr.known import PREDICTION
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.ehr.text_hash import shard_numbers

NOT_IN_TABLES = "not_in_tables"
UNKNOWN_SCHEMA = {"code": pl.String, "occurrences": pl.Int64}


@dataclass(frozen=True, eq=False)
class Eligible:
    """Those of one shard who may be predicted, in the order of patient and time."""

    rows: pl.DataFrame
    """As `select_cohort` gives them, one for each sequence."""
    sequences: PatientSequences
    exits: pl.DataFrame
    """subject_id, rule: of everybody else the ledger's line."""
    ledger: Ledger
    races: tuple[str, ...]
    """The names behind the numbers of race."""
    unknown: pl.DataFrame
    """code, occurrences: those that the vocabulary does not know, after backing off."""

    @property
    def unknown_codes(self) -> np.ndarray:
        """(n,) codes of each that the vocabulary does not know."""
        return sums_within(self.sequences.code_ids == UNK, self.sequences.code_offsets)


@dataclass(frozen=True)
class Recipe:
    """How a record becomes a sequence, as it was in training."""

    serialization: SerializationConfig
    vocabulary: Vocabulary
    back_off: bool


def eligible_of(
    ehr: Path, spec: CohortSpec | LabelFolder, recipe: Recipe, *, patients: Collection[str] | None = None
) -> Iterator[Eligible]:
    """Shard by shard, those who may be predicted; of `patients` alone, where they are given, whose shards are read.

    Raises ValueError for a rule that the source cannot decide, and for tables that are damaged.
    """
    source = read_source(ehr)
    if patients is None:
        yield from (eligible(read_shard(ehr, shard), spec, recipe) for shard in range(source.shards))
        return
    asked = pl.Series("patient_id", sorted(set(patients)), dtype=pl.String)
    shard_of = shard_numbers(asked, source.shards)
    for shard in np.unique(shard_of).tolist():
        wanted = asked.filter(pl.Series(shard_of == shard))
        tables = only_of(read_shard(ehr, shard), wanted.to_frame())
        yield with_missing(eligible(tables, spec, recipe), wanted, tables)


def eligible(tables: EhrTables, spec: CohortSpec | LabelFolder, recipe: Recipe) -> Eligible:
    """Those of one shard."""
    rows, selection, left = select_with_exits(tables, spec)
    races = tuple(tables.patients["race"].drop_nulls().unique().sort())
    several = isinstance(spec, LabelFolder) and spec.all_times
    histories, codes, ordering = order_histories(tables, recipe.serialization, until=rows, races=races, several=several)
    known = back_off(codes, recipe.vocabulary.codes) if recipe.back_off else codes
    sequences = with_vocabulary(histories, known, recipe.vocabulary)
    kept = pl.DataFrame(
        {
            "patient_id": pl.Series(sequences.patient_id.tolist(), dtype=pl.Binary).cast(pl.String),
            "prediction_time": pl.Series(sequences.outcomes["prediction_time"]).cast(pl.Datetime("us")),
        }
    )
    ledger = selection.followed_by(ordering, prefix=IN_LEDGER)
    # A rule under which somebody left, where there is one: who left under which of several is not known here.
    rules = [line.rule for line in ordering.lines if line.left.patients]
    lost = rows.join(kept, on=PREDICTION, how="anti")
    lost = lost.select("patient_id", leaves_under=pl.lit(IN_LEDGER + " or ".join(rules)))
    return Eligible(
        kept.join(rows, on=PREDICTION, how="left", maintain_order="left"),
        sequences,
        _exits(pl.concat([left, lost]), kept, [line.rule for line in ledger.lines]),
        ledger,
        races,
        _unknown(known, histories.code_ids, recipe.vocabulary),
    )


def _unknown(codes: np.ndarray, code_ids: np.ndarray, vocabulary: Vocabulary) -> pl.DataFrame:
    """code, occurrences of what became UNK."""
    occurrences = np.bincount(code_ids, minlength=len(codes))
    places = np.flatnonzero((vocabulary.encode(codes) == UNK) & (occurrences > 0))
    return pl.DataFrame({"code": codes[places].tolist(), "occurrences": occurrences[places]}, schema=UNKNOWN_SCHEMA)


def _exits(left: pl.DataFrame, kept: pl.DataFrame, rules: list[str]) -> pl.DataFrame:
    """subject_id, rule: a patient of several predictions leaves with the one that comes furthest."""
    place = pl.col("leaves_under").replace_strict(rules, range(len(rules)), default=len(rules))
    gone = left.join(kept, on="patient_id", how="anti").sort("patient_id", place)
    gone = gone.unique("patient_id", keep="last", maintain_order=True)
    return gone.select(subject_id="patient_id", rule="leaves_under")


def with_missing(found: Eligible, asked: pl.Series, tables: EhrTables) -> Eligible:
    """With the patients who were asked for and are not in the tables, counted before everybody else leaves."""
    missing = asked.filter(~asked.is_in(tables.patients["patient_id"].implode()))
    there = Counts(patients=len(missing))
    first = LedgerLine(NOT_IN_TABLES, "Asked for, and not in the tables", "ours", there)
    ledger = Ledger(found.ledger.title, found.ledger.came + there, [first, *found.ledger.lines])
    gone = pl.DataFrame({"subject_id": missing}).with_columns(rule=pl.lit(NOT_IN_TABLES))
    return replace(found, ledger=ledger, exits=pl.concat([found.exits, gone]))
