"""What is hidden: traits, windows and every event, enough to take up a life again; never read by the pipeline."""

from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.simulation.block import Block, World
from medbert_jax.simulation.hazards import ABSENT
from medbert_jax.simulation.life import Events, State
from medbert_jax.simulation.oracle import Past

TRUTH_TABLES = ("patients", "events", "recent", "errors")
"""Folders of the truth; the errors are made with the tables that hold them."""


def truth_frames(world: World, block: Block, ids: pl.Series) -> dict[str, pl.DataFrame]:
    """Frames by name. Days are days from 2000-01-01.

    patients: patient_id, birth, male, entry, end, died, one column per trait, one per condition that struck at random;
    events: patient_id, condition, day of everything that began, and before the first contact of what lasts;
    recent: patient_id, condition, the sum over events before the first contact that recency rests on.
    """
    lives, model = block.lives, world.model
    state = lives.state
    traits, struck = world.parameters.dynamics["traits"], world.parameters.world.get("random", ())
    patients = pl.DataFrame({
        "patient_id": ids,
        "birth": state.birth,
        "male": state.male.astype(np.int8),
        "entry": lives.entry,
        "end": lives.end,
        "died": lives.died,
        **{name: state.traits[:, place] for place, name in enumerate(traits)},
        **{f"struck_{name}": block.struck[:, place] for place, name in enumerate(struck)},
    })  # fmt: skip
    names = pl.Series(model.conditions)
    row, column = np.nonzero(state.onset < ABSENT)
    later = lives.events.where(lives.events.target < len(model.conditions))
    events = pl.DataFrame({
        "patient_id": ids.gather(np.concatenate([row, later.patient])),
        "condition": names.gather(np.concatenate([column, later.target])),
        "day": np.concatenate([state.onset[row, column], later.day]),
    })  # fmt: skip
    row, column = np.nonzero(state.recent > 1e-4)
    recent = pl.DataFrame({
        "patient_id": ids.gather(row),
        "condition": names.gather(model.recurrent[column]),
        "recent": state.recent[row, column],
    })  # fmt: skip
    return {"patients": patients, "events": events, "recent": recent}


def read_past(world: World, truth, shard: int, shards: int, patient_ids: list[str]) -> Past:
    """The hidden lives of some patients of a shard, in the order of the ids.

    Raises KeyError for ids that the shard has not.
    """
    name = f"shard-{shard:05d}-of-{shards:05d}.parquet"
    model, traits = world.model, world.parameters.dynamics["traits"]
    of = {patient: row for row, patient in enumerate(patient_ids)}
    patients = pl.read_parquet(Path(truth) / "patients" / name).filter(pl.col("patient_id").is_in(patient_ids))
    if patients.height != len(of):
        raise KeyError(f"{len(of) - patients.height} of {len(of)} patients are not in the truth of shard {shard}")
    patients = patients.sort(pl.col("patient_id").replace_strict(of))
    n, entry = patients.height, patients["entry"].to_numpy()
    state = State(
        birth=patients["birth"].to_numpy(),
        male=patients["male"].to_numpy().astype(np.int64),
        traits=np.ascontiguousarray(patients.select(traits).to_numpy()),
        onset=np.full((n, len(model.conditions)), ABSENT, np.float32),
        recent=np.zeros((n, len(model.recurrent)), np.float32),
    )
    places = {condition: place for place, condition in enumerate(model.conditions)}

    def rows(table: str) -> tuple[np.ndarray, np.ndarray, pl.DataFrame]:
        frame = pl.read_parquet(Path(truth) / table / name).filter(pl.col("patient_id").is_in(patient_ids))
        patient = frame["patient_id"].replace_strict(of, return_dtype=pl.Int32).to_numpy()
        return patient, frame["condition"].replace_strict(places, return_dtype=pl.Int32).to_numpy(), frame

    patient, condition, frame = rows("recent")
    state.recent[patient, np.searchsorted(model.recurrent, condition)] = frame["recent"].to_numpy()
    patient, condition, frame = rows("events")
    day = frame["day"].to_numpy()
    old = day <= entry[patient]
    np.minimum.at(state.onset, (patient[old], condition[old]), day[old])
    return Past(state, entry, Events(patient[~old], condition[~old], day[~old]))
