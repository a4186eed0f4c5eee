"""A block as frames of the EHR tables, with the recording errors that are planted in them, each counted."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from medbert_jax.ehr.schema import SCHEMAS
from medbert_jax.simulation.block import Block, World
from medbert_jax.simulation.codes import SYSTEMS
from medbert_jax.simulation.errors import Planted, plant
from medbert_jax.simulation.life import site_days
from medbert_jax.simulation.visits import INPATIENT, OTHER, TYPES

_EPOCH_DAYS = int((np.datetime64("2000-01-01") - np.datetime64("1970-01-01")).astype(int))
_WAYS = np.array(["home", "facility", "hospice", "other", "expired"])


@dataclass(frozen=True)
class Frames:
    """Frames of a block: the EHR tables and the errors planted in them (patient_id, kind, count)."""

    tables: dict[str, pl.DataFrame]
    errors: pl.DataFrame


def frames(world: World, block: Block, ids: pl.Series, rng: np.random.Generator) -> Frames:
    """The tables of a block; `ids`: patient ids in the order of the block."""
    parameters, visits = world.parameters, block.visits
    planted = plant(parameters, block, rng)
    names = ids.gather(planted.patient)
    visit_ids = names + "-" + pl.Series(planted.order).cast(pl.String)
    tables = {
        "patients": _patients(world, block, ids, planted, rng),
        "visits": _visits(world, block, planted, names, visit_ids, rng),
        "diagnoses": _diagnoses(world, block, planted, names, visit_ids, rng),
        "follow_up": _follow_up(world, block, ids),
    }
    for name, listed in world.clinic.listed.items():
        rows = getattr(block, name)
        kept = ~planted.patients.get(f"no_{name}", np.zeros(len(ids), bool))[visits.patient[rows.visit]]
        visit, what = rows.visit[kept], rows.name[kept]
        at = planted.place[visit]
        # At some time of the first day, at the latest at discharge.
        wait = np.minimum(
            rng.random(len(visit)) * parameters.dynamics["visits"]["late_events_days"],
            np.maximum(visits.discharge[visit] - visits.admit[visit], 0.0),
        )
        columns = {
            "patient_id": names.gather(at),
            "visit_id": visit_ids.gather(at),
            "time": _time(visits.admit[visit] + wait),
        }
        columns |= {column: pl.Series(column, cells).gather(what) for column, cells in listed.items()}
        if name == "measurements":
            lost = rng.random(len(what)) < parameters.dynamics["errors"]["measurements"]["no_unit"]
            planted.count("no_unit", visits.patient[visit[lost]])
            columns |= {"value": pl.Series(rows.value[kept]), "unit": _known(columns["unit"], ~lost)}
        tables[name] = _table(name, columns)
    errors = pl.DataFrame(
        [
            {"patient": p, "kind": kind, "count": n}
            for kind, counts in planted.counts.items()
            for p, n in counts.items()
        ],
        schema={"patient": pl.Int64, "kind": pl.String, "count": pl.Int64},
    )
    errors = errors.select(ids.gather(errors["patient"]).alias("patient_id"), "kind", "count")
    return Frames(tables, errors)


def _table(name: str, columns: dict) -> pl.DataFrame:
    return pl.DataFrame([pl.Series(c, columns[c]).cast(dtype) for c, dtype in SCHEMAS[name].items()])


def _time(days: np.ndarray) -> pl.Series:
    minutes = np.round((days + _EPOCH_DAYS) * 1440).astype(np.int64)
    return pl.Series(minutes * 60_000_000).cast(pl.Datetime("us"))


def _date(days: np.ndarray) -> pl.Series:
    return pl.Series(np.floor(days).astype(np.int32) + _EPOCH_DAYS).cast(pl.Date)


def _known(values: pl.Series, known: np.ndarray) -> pl.Series:
    """The values, null where they are not known."""
    return values.zip_with(
        pl.Series(known), pl.Series(values.name, [None], dtype=values.dtype).new_from_index(0, len(values))
    )


def _patients(world: World, block: Block, ids: pl.Series, planted: Planted, rng: np.random.Generator) -> pl.DataFrame:
    lives, n = block.lives, len(ids)
    told = lives.died & ((rng.random(n) < world.parameters.dynamics["known"]["death"]) | planted.expired)
    race = pl.Series(block.race.tolist(), dtype=pl.String)
    if not world.parameters.site["race"]:
        race = pl.Series([None] * n, dtype=pl.String)
    death = np.where(np.isnan(planted.death), lives.end, planted.death)
    told |= ~np.isnan(planted.death) | planted.dead
    return _table("patients", {
        "patient_id": ids,
        "birth_date": _known(_date(lives.state.birth), ~planted.patients["unknown_birth"]),
        "sex": _known(pl.Series(["female", "male"]).gather(lives.state.male), ~planted.patients["unknown_sex"]),
        "race": race,
        "death_date": _known(_date(death), told),
        "death_time": pl.Series([None], dtype=pl.Datetime("us")).new_from_index(0, n),
    })  # fmt: skip


def _visits(
    world: World, block: Block, planted: Planted, names: pl.Series, ids: pl.Series, rng: np.random.Generator
) -> pl.DataFrame:
    visits, of = block.visits, planted.of
    kind = visits.kind[of]
    way = np.searchsorted(list(world.parameters.dynamics["dispositions"].values()), rng.random(len(visits)))
    way = np.where(visits.kind == INPATIENT, way, 0)
    way = np.where(visits.last, 4, way)[of]
    stay = np.floor(planted.discharge).astype(np.int64) - np.floor(planted.admit).astype(np.int64)
    whole = planted.known_admit & planted.known_discharge
    return _table("visits", {
        "visit_id": ids,
        "patient_id": names,
        "order": pl.Series(planted.order),
        "admit_time": _known(_time(planted.admit), planted.known_admit),
        "discharge_time": _known(_time(planted.discharge), planted.known_discharge),
        "length_of_stay": _known(pl.Series(stay), whole),
        "visit_type": pl.Series(TYPES).gather(kind),
        "age_days": pl.Series([None], dtype=pl.Int32).new_from_index(0, len(of)),
        "age_precision_days": pl.Series([None], dtype=pl.Int32).new_from_index(0, len(of)),
        "discharge_disposition": _known(pl.Series(_WAYS.tolist()).gather(way), kind != OTHER),
        "readmitted_30d": pl.Series([None], dtype=pl.Boolean).new_from_index(0, len(of)),
    })  # fmt: skip


def _diagnoses(
    world: World, block: Block, planted: Planted, names: pl.Series, ids: pl.Series, rng: np.random.Generator
) -> pl.DataFrame:
    mentions, visits = block.mentions, block.visits
    known, flags = world.parameters.dynamics["known"], world.parameters.dynamics["flags"]
    n = len(mentions.visit)
    here = np.where(visits.kind[mentions.visit] == INPATIENT, rng.random(n) < flags["present_on_admission"], True)
    billed = rng.random(n) < flags["captured_at_billing"]
    unknown = {name: rng.random(n) >= share for name, share in known.items() if name != "death"}
    row, at = planted.diagnosis_rows(mentions.visit, visits.patient)
    code = mentions.code[row]
    # What was there is written down at the admission, what came later half-way, what is coded for the bill at the end.
    admit, discharge = planted.admit[at], planted.discharge[at]
    dated = planted.known_admit[at] & planted.known_discharge[at] & (admit <= discharge)
    time = np.where(billed[row], discharge, np.where(here[row], admit, (admit + discharge) / 2))
    return _table("diagnoses", {
        "patient_id": names.gather(at),
        "visit_id": ids.gather(at),
        "code_system": pl.Series(SYSTEMS).gather(world.book.system[code]),
        "code": pl.Series(world.book.codes.tolist(), dtype=pl.String).gather(code),
        "present_on_admission": _known(pl.Series(here), ~unknown["present_on_admission"])[row],
        "captured_at_billing": _known(pl.Series(billed), ~unknown["captured_at_billing"])[row],
        "priority": _known(pl.Series(mentions.priority + 1), ~unknown["priority"])[row],
        "time": _known(_time(time), dated),
    })  # fmt: skip


def _follow_up(world: World, block: Block, ids: pl.Series) -> pl.DataFrame:
    """From the first contact to death, leaving, or the last day of the data: what a payer or a registry would know."""
    last = site_days(world.parameters)[1] - 1
    return _table("follow_up", {
        "patient_id": ids,
        "start": _date(block.lives.entry),
        "end": _date(np.minimum(block.lives.end, last)),
    })  # fmt: skip
