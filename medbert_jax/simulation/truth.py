"""What is hidden: traits, windows and every event, enough to take up a life again; never read by the pipeline."""

import re
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.disk.stored_json import read_object
from medbert_jax.disk.tables_on_disk import read_parquet
from medbert_jax.ehr.schema import EhrSource
from medbert_jax.simulation.block import Block, World
from medbert_jax.simulation.hazards import ABSENT
from medbert_jax.simulation.identity import ENGINE
from medbert_jax.simulation.life import Events, State
from medbert_jax.simulation.oracle import Past

TRUTH_TABLES = ("patients", "events", "recent", "errors")
"""Folders of the truth; the errors are made with the tables that hold them."""
TRUTH_FILES = re.compile(rf"truth\.json|({'|'.join(TRUTH_TABLES)})/shard-\d+-of-\d+\.parquet")
"""Files of a truth, which go with it when it is replaced."""


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
    later = lives.events.take(lives.events.target < len(model.conditions))
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


def made_by(said: dict) -> str:
    """What tables say of how they were made, among the assumptions of their source; `said` as in truth.json."""
    names = ("site", "world", "seed", "engine", "parameters")
    return f"{', '.join(f'{name} {said.get(name)}' for name in names)}.".capitalize()


def check_truth(world: World, truth, tables: EhrSource, **settings: int) -> None:
    """Refuse a truth of another world or of other tables.

    Args:
        world: that the truth is used with.
        truth: folder.
        tables: that the truth is used with.
        settings: further entries of truth.json as they must be: seed, patients.

    Raises:
        FileNotFoundError: no truth.json, which is written last.
        ValueError: with everything that differs.
    """
    rule = "a truth is used with the world and the tables that it was made with"
    advice = "simulate tables and truth again, both in one run, or name the folders that belong together"
    path = Path(truth) / "truth.json"
    if not path.is_file():
        raise FileNotFoundError(f"{rule}: got {truth}, which holds no truth.json; {advice}")
    said = read_object(path, cure=advice)
    used = {
        "site": world.parameters.site_name,
        "world": world.parameters.world_name,
        "engine": ENGINE,
        "parameters": world.parameters.hash,
        "shards": tables.shards,
        "tables": tables.content_hash,
        **settings,
    }
    faults = [f"{name} {said.get(name)} instead of {value}" for name, value in used.items() if said.get(name) != value]
    if made_by(said) not in tables.assumptions:
        faults.append("tables that say another site, world, seed, engine or parameters")
    if faults:
        raise ValueError(f"{rule}: got {', '.join(faults)}; {advice}")


def read_past(world: World, truth, tables: EhrSource, shard: int, patient_ids: list[str]) -> Past:
    """The hidden lives of some patients of a shard of `tables`, in the order of the ids.

    Raises KeyError for ids that the shard has not, and as `check_truth`.
    """
    check_truth(world, truth, tables)
    name = f"shard-{shard:05d}-of-{tables.shards:05d}.parquet"
    model, traits = world.model, world.parameters.dynamics["traits"]
    of = {patient: row for row, patient in enumerate(patient_ids)}
    patients = read_parquet(Path(truth) / "patients" / name).filter(pl.col("patient_id").is_in(patient_ids))
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
        frame = read_parquet(Path(truth) / table / name).filter(pl.col("patient_id").is_in(patient_ids))
        patient = frame["patient_id"].replace_strict(of, return_dtype=pl.Int32).to_numpy()
        return patient, frame["condition"].replace_strict(places, return_dtype=pl.Int32).to_numpy(), frame

    patient, condition, frame = rows("recent")
    state.recent[patient, np.searchsorted(model.recurrent, condition)] = frame["recent"].to_numpy()
    patient, condition, frame = rows("events")
    day = frame["day"].to_numpy()
    old = day <= entry[patient]
    np.minimum.at(state.onset, (patient[old], condition[old]), day[old])
    return Past(state, entry, Events(patient[~old], condition[~old], day[~old]))
