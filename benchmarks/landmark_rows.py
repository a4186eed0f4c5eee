"""The patients of `dhf-landmark` with all that is known of them, hidden and seen: what `simulate_room.py` scores."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl
from scipy import sparse

from medbert_jax.cohorts.loading import load_spec
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.ehr.hashing import assign_split
from medbert_jax.ehr.tables import read_shard, read_source
from medbert_jax.simulation.block import World
from medbert_jax.simulation.hazards import ABSENT, Model, features, log_hazards
from medbert_jax.simulation.oracle import Past, probability_within_year, state_at
from medbert_jax.simulation.truth import read_past

TARGET = "heart_failure"
_EPOCH = np.datetime64("2000-01-01", "us")


@dataclass(frozen=True)
class Rows:
    """One row per patient of the cohort."""

    label: np.ndarray
    split: np.ndarray
    codes: sparse.csr_matrix
    observed: np.ndarray  # hand-made: order, duration, recency, counts; from codes and dates alone
    features: np.ndarray  # of the hidden state
    person: np.ndarray  # age in days, sex
    log_hazard: np.ndarray
    # The same where each patient's visits, and his hidden events, have changed their days among each other.
    permuted_observed: np.ndarray
    permuted_features: np.ndarray
    permuted_log_hazard: np.ndarray
    oracle: np.ndarray  # (n, 2) from two halves of the futures; NaN where not tried, or where no future was possible
    tried: np.ndarray  # whether the oracle was


def collect(world: World, work: Path, replicates: int, most: int, everyone: bool, rng: np.random.Generator) -> Rows:
    """The cohort, shard by shard."""
    source, spec = read_source(work / "ehr"), load_spec("dhf-landmark")
    parts, left = [], most
    texts = [f"{('ICD9CM', 'ICD10CM')[s]}/{c}" for c, s in zip(world.book.codes, world.book.system, strict=True)]
    place = {text: number for number, text in enumerate(texts)}
    means = condition_of(world)
    for shard in range(source.shards):
        tables = read_shard(work / "ehr", shard)
        frame, _ = select_cohort(tables, spec)
        ids = frame["patient_id"].to_list()
        t0 = (frame["prediction_time"].to_numpy() - _EPOCH) / np.timedelta64(1, "D")
        past = read_past(world, work / "truth", source, shard, ids)
        state = state_at(world, past, t0.astype(np.float32))
        hidden = features(world.model, state, t0.astype(np.float32))
        target = world.model.place(TARGET)
        hazard = log_hazards(world.model, state, t0.astype(np.float32), hidden)[:, target]
        mixed = state_at(world, in_random_order(past, t0, rng), t0.astype(np.float32))
        mixed_hidden = features(world.model, mixed, t0.astype(np.float32))
        mixed_hazard = log_hazards(world.model, mixed, t0.astype(np.float32), mixed_hidden)[:, target]
        person = np.stack([t0 - state.birth, state.male], 1).astype(np.float32)
        split = assign_split(ids, key="room")
        oracle = np.full((len(ids), 2), np.nan)
        chosen = np.flatnonzero(everyone | (split == 2))[:left]
        left -= len(chosen)
        if len(chosen):
            mine = past.take(chosen)
            for half in (0, 1):
                oracle[chosen, half] = probability_within_year(world, mine, t0[chosen], rng, replicates=replicates)
        tried = np.isin(np.arange(len(ids)), chosen)
        read = tables.visits.join(frame.with_row_index("row"), on="patient_id")
        read = read.filter(pl.col("order") <= pl.col("input_until"))
        read = read.select("row", "patient_id", "visit_id", "admit_time", "length_of_stay", "prediction_time")
        found = tables.diagnoses.join(read, on=["patient_id", "visit_id"])
        code = (found["code_system"] + "/" + found["code"]).replace_strict(place, return_dtype=pl.Int64).to_numpy()
        row = found["row"].to_numpy().astype(np.int64)
        codes = sparse.csr_matrix((np.ones(len(row), np.float32), (row, code)), (len(ids), len(texts)))
        codes.data[:] = 1.0
        seen, mixed_seen = (
            by_hand(row, means[code], found, visits, len(ids), world.model)
            for visits in (read, days_dealt_anew(read, rng))
        )
        parts.append(
            Rows(
                label=frame["label"].to_numpy(),
                split=split,
                codes=codes,
                observed=seen,
                features=hidden,
                person=person,
                log_hazard=hazard,
                permuted_observed=mixed_seen,
                permuted_features=mixed_hidden,
                permuted_log_hazard=mixed_hazard,
                oracle=oracle,
                tried=tried,
            )
        )
    names = Rows.__dataclass_fields__
    joined = {name: [getattr(part, name) for part in parts] for name in names}
    return Rows(
        **{name: sparse.vstack(v).tocsr() if name == "codes" else np.concatenate(v) for name, v in joined.items()}
    )


def in_random_order(past: Past, day: np.ndarray, rng: np.random.Generator) -> Past:
    """The same events up to `day` (n,), each patient's days dealt anew among them: what order alone is worth."""
    row, column = np.nonzero(past.state.onset < ABSENT)
    later = past.events.take(
        (past.events.day <= day[past.events.patient]) & (past.events.target < past.state.onset.shape[1])
    )
    patient = np.concatenate([row, later.patient])
    days = np.concatenate([past.state.onset[row, column], later.day])
    dealt = days_within(patient, days, rng)
    onset = past.state.onset.copy()
    onset[row, column] = dealt[: len(row)]
    return Past(replace(past.state, onset=onset), past.entry, replace(later, day=dealt[len(row) :]))


def days_within(owner: np.ndarray, days: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The days (n,), each owner's dealt anew among his rows."""
    dealt = np.empty_like(days)
    dealt[np.argsort(owner, kind="stable")] = days[np.lexsort((rng.random(len(days)), owner))]
    return dealt


def condition_of(world: World) -> np.ndarray:
    """The condition that a code stands for most (codes,), −1 for those of the background."""
    best, out = np.zeros(len(world.book.codes)), np.full(len(world.book.codes), -1)
    places = {
        (s, c): n for n, (s, c) in enumerate(zip(world.book.system.tolist(), world.book.codes.tolist(), strict=True))
    }
    for condition, name in enumerate(world.model.conditions):
        for system, key in enumerate(("ICD9CM", "ICD10CM")):
            for code, weight in (world.parameters.coding.get(name, {}).get(key) or {}).items():
                at = places.get((system, str(code)))
                if at is not None and weight > best[at]:
                    best[at], out[at] = weight, condition
    return out


def days_dealt_anew(visits: pl.DataFrame, rng: np.random.Generator) -> pl.DataFrame:
    """The visits with their codes, each patient's days of admission dealt anew among them."""
    dealt = days_within(visits["row"].to_numpy(), visits["admit_time"].to_numpy(), rng)
    return visits.with_columns(admit_time=pl.Series(dealt))


def by_hand(
    row: np.ndarray, condition: np.ndarray, found: pl.DataFrame, visits: pl.DataFrame, n: int, model: Model
) -> np.ndarray:
    """What codes and dates tell (n, columns): presence, duration, recency, order and number of mentions, and of visits.

    Per condition days since the first and last mention, mentions, and mentions discounted by days; days between the
    first mentions of the pairs whose order the truth uses, 1e6 where one is not mentioned; visits within days.

    Args:
        row, condition: of each code in `found`; −1: a condition of the background.
        found: codes with patient_id and visit_id.
        visits: what may be read, with row, admit_time and prediction_time.
    """
    days = visits.select(
        "patient_id", "visit_id", since=(pl.col("prediction_time") - pl.col("admit_time")).dt.total_days()
    )
    since = found.select("patient_id", "visit_id").join(
        days, on=["patient_id", "visit_id"], how="left", maintain_order="left"
    )
    known, since = condition >= 0, since["since"].to_numpy().astype(np.float32)
    row, condition, since, conditions = row[known], condition[known], since[known], len(model.conditions)
    first, last = np.full((n, conditions), -1, np.float32), np.full((n, conditions), 1e6, np.float32)
    np.maximum.at(first, (row, condition), since)
    np.minimum.at(last, (row, condition), since)
    count, recent = np.zeros((n, conditions), np.float32), np.zeros((n, conditions), np.float32)
    np.add.at(count, (row, condition), 1)
    np.add.at(recent, (row, condition), np.exp(-since / 200))
    one, other = np.array([places for family, places in model.specials if family == "order"]).T
    between = np.where((first[:, one] >= 0) & (first[:, other] >= 0), first[:, one] - first[:, other], 1e6)
    owner, ago = visits["row"].to_numpy().astype(np.int64), days["since"].to_numpy()
    stay = visits["length_of_stay"].fill_null(0).to_numpy()
    often = [np.bincount(owner, ago < within, n) for within in (30, 90, 180, 365, 1e9)]
    often.append(np.bincount(owner, stay * (ago < 365), n))
    return np.hstack([first, last, count, recent, between, np.stack(often, 1)]).astype(np.float32)
