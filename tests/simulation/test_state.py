"""The hidden state: that of the first contact stays, is written once, and can be taken up at any later time."""

import json
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from medbert_jax.ehr.schema import EhrSource
from medbert_jax.simulation import oracle
from medbert_jax.simulation.block import World
from medbert_jax.simulation.hazards import ABSENT
from medbert_jax.simulation.identity import ENGINE
from medbert_jax.simulation.life import State, advance, live
from medbert_jax.simulation.oracle import Past, probability_within_year, state_at
from medbert_jax.simulation.parameters import load_parameters
from medbert_jax.simulation.truth import made_by, read_past, truth_frames

N, STEPS = 1_200, 3


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def world():
    return World(load_parameters())


def grown(world: World, rng: np.random.Generator) -> tuple[State, np.ndarray]:
    """Patients at their first contact."""
    return world.newcomers(N, rng)[:2]


def test_the_state_at_the_first_contact_is_not_changed_by_what_comes_after(world):
    rng = stream(11)
    state, entry = grown(world, rng)
    onset, recent = state.onset.copy(), state.recent.copy()
    lives = live(world.model, state, entry, world.last, world.step_days, rng)
    assert lives.state is state and np.array_equal(state.onset, onset) and np.array_equal(state.recent, recent)
    assert (onset[onset < ABSENT] <= np.broadcast_to(entry[:, None], onset.shape)[onset < ABSENT]).all()


def test_whatever_is_taken_of_a_state_is_a_copy(world):
    state, _ = grown(world, stream(11))
    for places in (slice(None), slice(2, 9), np.arange(N), np.ones(N, bool)):
        taken = state.take(places)
        for name in ("birth", "male", "traits", "onset", "recent"):
            assert not np.shares_memory(getattr(taken, name), getattr(state, name)), (places, name)


def test_a_condition_stands_once_and_is_written_once(world):
    block = world.block(N, stream(12))
    pairs = block.standing.patient * 10_000 + block.standing.condition
    assert len(np.unique(pairs)) == len(pairs) > N
    ids = pl.Series([f"s{number}" for number in range(N)])
    events = truth_frames(world, block, ids)["events"]
    acute = [name for name, again in zip(world.model.conditions, world.model.acute, strict=True) if again]
    lasting = events.filter(~pl.col("condition").is_in(acute))
    assert lasting.select("patient_id", "condition").is_duplicated().sum() == 0
    assert events.is_duplicated().sum() == 0


def test_the_truth_on_disk_gives_the_state_at_a_later_day(world, tmp_path):
    rng = stream(13)
    state, entry = grown(world, rng)
    lives = live(world.model, state.take(np.arange(N)), entry, world.last, world.step_days, rng)
    # The same lives once more, keeping their state from step to step.
    rng = stream(13)
    kept, now = grown(world, rng)
    who = np.arange(N)
    for _ in range(STEPS):
        until = np.minimum(now + np.float32(world.step_days), np.float32(world.last))
        events = advance(world.model, kept, now, until, rng)
        final = np.isin(events.target, [world.model.place("death"), world.model.place("leave")])
        stays = until < world.last
        stays[events.patient[final]] = False
        kept, who, now = kept.take(stays), who[stays], until[stays]
    assert len(who) > N / 3
    ids = pl.Series([f"s{number}" for number in range(N)])
    for name, frame in truth_frames(world, SimpleNamespace(lives=lives, struck=np.zeros((N, 0))), ids).items():
        (tmp_path / name).mkdir()
        frame.write_parquet(tmp_path / name / "shard-00000-of-00001.parquet")
    said = {"site": "cerner", "world": "rich", "seed": 13, "shards": 1, "engine": ENGINE}
    said["parameters"] = world.parameters.hash
    (tmp_path / "truth.json").write_text(json.dumps({**said, "tables": "some hash"}))
    tables = EhrSource("simulated", True, "days", (made_by(said),), content_hash="some hash")
    past = read_past(world, tmp_path, tables, 0, ids.gather(who).to_list())
    found = state_at(world, past, now)
    assert np.array_equal(found.onset, kept.onset)
    np.testing.assert_allclose(found.recent, kept.recent, rtol=1e-3, atol=2e-4)
    assert (found.recent > 0.1).sum() > 100
    at_entry = state_at(world, past, past.entry)
    np.testing.assert_allclose(at_entry.recent, state.recent[who], rtol=1e-5, atol=2e-4)


@pytest.fixture
def frail():
    """A world in which heart failure strikes nearly everybody within weeks, and patients half a step after entry."""
    world = World(load_parameters())
    lives, _ = world.lives(300, stream(14))
    place = world.model.place("heart_failure")
    world.model.base[:, :, place], world.model.weights[:, place] = np.log(12.0), 0.0
    fine = np.flatnonzero((lives.state.onset[:, place] == ABSENT) & (lives.end > lives.entry + 60)
                          & (lives.entry < world.last - 500))[:20]  # fmt: skip
    past = Past.of(lives).take(fine)
    return world, Past(past.state, past.entry, past.events.take(past.events.target != place))


def test_in_the_futures_a_condition_stands_once_and_no_visit_is_the_first(frail, monkeypatch):
    world, past = frail
    coder, seen = world.coder, []

    def spy(lives, visits, stands, rng, **settings):
        seen.append((stands, settings))
        return coder(lives, visits, stands, rng, **settings)

    monkeypatch.setattr(world, "coder", spy)
    probability_within_year(world, past, past.entry + 45.5, stream(15), replicates=40)
    assert len(seen) > 0
    for stands, settings in seen:
        assert len(np.unique(stands.patient)) == len(stands.patient) > 500
        assert settings == {"first_contact": False}


def test_only_at_a_first_contact_is_the_history_taken(world):
    block = world.block(400, stream(16))
    first = np.append(True, np.diff(block.visits.patient) > 0)
    counts = [
        first[world.coder(block.lives, block.visits, block.standing, stream(17), first_contact=one).visit].sum()
        for one in (True, False)
    ]
    assert counts[0] > 1.15 * counts[1]


def test_without_a_possible_future_the_oracle_knows_nothing(frail, monkeypatch):
    world, past = frail

    def futures(world, past, t0, rng):
        patient = np.arange(len(t0)) // 10
        return np.ones(len(t0), bool), patient % 2 == 0  # of every second patient all futures are impossible

    monkeypatch.setattr(oracle, "_futures", futures)
    chance = probability_within_year(world, past, past.entry + 45.5, stream(18), replicates=10)
    assert np.isnan(chance[::2]).all() and (chance[1::2] == 1.0).all()
