"""What the dials of the world take away, and that what was put into the hazards can be found again."""

import numpy as np
import pytest

from benchmarks.effect_estimates import gather
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.simulation.block import World
from medbert_jax.simulation.codes import build_code_book
from medbert_jax.simulation.life import site_days
from medbert_jax.simulation.oracle import HEART_FAILURE, Past, heart_failure_codes, probability_within_year, state_at
from medbert_jax.simulation.parameters import SITES, WORLDS, load_parameters

N = 1_500


def stream(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.Philox(seed))


@pytest.fixture(scope="module")
def rich():
    world = World(load_parameters())
    return world, world.block(N, stream(1))


@pytest.fixture(scope="module")
def null():
    world = World(load_parameters(world="null"))
    return world, world.block(N, stream(2))


def test_every_world_is_built_from_the_same_files(rich, null):
    assert rich[0].parameters.hash == null[0].parameters.hash
    assert {*rich[0].parameters.dynamics["worlds"]} == {*WORLDS}


def test_in_the_bag_only_the_set_of_conditions_acts():
    model = World(load_parameters(world="bag")).model
    assert {family for family, _ in model.specials} == {"trait"}  # of visits and leaving
    of_traits = model.weights[len(model.conditions) :]
    assert set(np.flatnonzero(of_traits.any(0))) == {model.place("visit"), model.place("leave")}
    adult = model.base[:, 18:, model.place("heart_failure")]
    assert np.ptp(adult[0]) == 0  # no age


def test_without_synonyms_every_condition_has_one_code():
    book = build_code_book(load_parameters(world="no-synonyms"))
    for row in book.groups[:, 0]:
        assert len(set(row[row >= 0])) <= 1
    many = build_code_book(load_parameters())
    assert len(set(book.choices[: len(book.names)])) < len(many.codes) / 5


def test_in_the_null_world_heart_failure_strikes_at_one_rate(null):
    world, block = null
    rate = world.parameters.world["random"]["heart_failure"]
    first, last = site_days(world.parameters)
    begin = np.maximum(first, np.ceil(block.lives.state.birth))
    end = np.where(block.lives.died, block.lives.end, last)
    struck = block.struck[:, 0]
    until = np.where(np.isnan(struck), end, struck)
    expected = rate * (until - begin).sum() / 365.25
    events = np.isfinite(struck).sum()
    assert abs(events - expected) < 3.5 * np.sqrt(expected)
    # Also before and after the time at the site, and whoever the patient is.
    assert (struck > block.lives.end).sum() > 50 and (struck < block.lives.entry).sum() > 50
    ill = block.lives.state.onset[:, world.model.place("hypertension")] < 1e8
    assert abs(np.isfinite(struck)[ill].mean() - np.isfinite(struck)[~ill].mean()) < 0.12


def test_in_the_null_world_heart_failure_has_encounters_of_its_own(null):
    world, block = null
    is_code = heart_failure_codes(world)[block.mentions.code]
    of_own = block.visits.fixed[block.mentions.visit]
    target = world.model.place("heart_failure")
    assert not (is_code & ~of_own).any()
    assert is_code[of_own & (block.visits.reason[block.mentions.visit] == target)].all()
    counts = np.bincount(block.visits.patient[block.visits.fixed & (block.visits.reason == target)], minlength=N)
    room = np.where(block.lives.died, block.lives.end, world.last) - 10
    assert (counts[(block.struck[:, 0] < room)] == 3).all()
    # Verified by nothing else than these.
    own = np.flatnonzero(block.visits.fixed & (block.visits.reason == target))
    drug = world.clinic.ingredients.index("furosemide")
    assert set(own) <= set(block.medications.visit[block.medications.name == drug])
    bnp = block.measurements.name == world.clinic.tests.index("BNP")
    assert set(own) <= set(block.measurements.visit[bnp])
    assert block.measurements.value[bnp & np.isin(block.measurements.visit, own)].min() > 100


def test_codes_are_independent_given_age_and_sex_in_that_world(rich):
    world = World(load_parameters(world="independent"))
    lifts = [_lift(world, world.block(N, stream(3))), _lift(*rich)]
    assert 0.7 < lifts[0] < 1.35 < 2.0 < lifts[1]


def _lift(world: World, block) -> float:
    """How much more often than by chance visits repeat a code of the visit before, within decades of age and sex."""
    mentions, visits = block.mentions, block.visits
    decade = ((visits.admit - block.lives.state.birth[visits.patient]) / 365.25).astype(int) // 10
    stratum = np.where(visits.admit < 5_700, 2 * decade + block.lives.state.male[visits.patient], -1)
    has = np.zeros((len(visits), len(world.book.codes)), bool)
    has[mentions.visit, mentions.code] = True
    together = expected = 0.0
    for one in range(16):
        of = (visits.patient[1:] == visits.patient[:-1]) & (stratum[1:] == one) & (stratum[:-1] == one)
        pairs = np.flatnonzero(of)
        together += (has[pairs] & has[pairs + 1]).sum()
        expected += (has[stratum == one].mean(0) ** 2).sum() * len(pairs)
    return together / expected


@pytest.mark.parametrize("site", SITES)
def test_codes_are_of_the_era(site):
    world = World(load_parameters(site))
    block = world.block(400, stream(4))
    ten = world.book.system[block.mentions.code] == 1
    day = block.visits.admit[block.mentions.visit]
    assert (ten == (day >= world.coder.icd10_from)).all()
    assert ten.any() == (site == "cerner")
    first, last = site_days(world.parameters)
    assert day.min() >= first and day.max() < last


def test_marginals_are_near_those_of_the_paper(rich):
    # Wide bounds: 1,500 patients. benchmarks/simulate_marginals.py has the narrow ones.
    _, block = rich
    owner = block.visits.patient[block.mentions.visit]
    kept = np.bincount(np.unique(owner * 100_000 + block.mentions.code) // 100_000, minlength=N) >= 3
    codes = np.bincount(owner, minlength=N)[kept]
    visits = np.bincount(block.visits.patient, minlength=N)[kept]
    stay = np.floor(block.visits.discharge) - np.floor(block.visits.admit)
    prolonged = np.bincount(block.visits.patient, stay > 7, N)[kept] > 0
    assert 6 < visits.mean() < 10.5 and 12 < codes.mean() < 19 and 7 <= np.median(codes) <= 11
    assert 0.11 < prolonged.mean() < 0.19 and 0.40 < block.lives.state.male[kept].mean() < 0.50


def test_effects_are_found_again(rich):
    world, _ = rich
    rows = gather(world, 6_000, stream(5), steps=16).estimates(world)
    true, estimate, error = (np.array([row[place] for row in rows]) for place in (2, 3, 4))
    inside = np.abs(estimate - true) < 1.96 * error
    assert len(rows) > 60 and inside.mean() > 0.88
    # A planted fault: effects doubled are not covered.
    assert (np.abs(estimate - 2 * true) < 1.96 * error).mean() < 0.8


@pytest.mark.parametrize(("rate", "low", "high"), [(1e-9, 0.0, 0.0), (0.5, 0.15, 0.45), (60.0, 0.8, 1.0)])
def test_the_oracle_follows_the_hazard(rate, low, high):
    world = World(load_parameters())
    lives, _ = world.lives(300, stream(6))
    world.model.base[:, :, world.model.place("heart_failure")] = np.log(rate)
    world.model.weights[:, world.model.place("heart_failure")] = 0.0
    world.coder.suspicions, world.coder.site = [], {**world.coder.site, "wrong": 0.0}
    ill = lives.state.onset[:, world.model.place("heart_failure")] < 1e8
    # Alive and well half a step after the first contact, with a year to go.
    fine = np.flatnonzero(~ill & (lives.end > lives.entry + 60) & (lives.entry < world.last - 500))[:25]
    past = Past.of(lives).take(fine)
    past = Past(past.state, past.entry, past.events.take(past.events.target != world.model.place("heart_failure")))
    chance = probability_within_year(world, past, past.entry + 45.5, stream(7), replicates=60)
    assert low <= chance.mean() <= high


def test_the_state_at_a_day_is_what_had_happened_by_then(rich):
    world, block = rich
    past = Past.of(block.lives)
    at_entry = state_at(world, past, block.lives.entry)
    assert np.array_equal(at_entry.onset, block.lives.state.onset)
    np.testing.assert_allclose(at_entry.recent, block.lives.state.recent, rtol=1e-5)
    at_end = state_at(world, past, block.lives.end)
    ill = block.lives.events.target < len(world.model.conditions)
    onsets = at_end.onset[block.lives.events.patient[ill], block.lives.events.target[ill]]
    assert (onsets <= block.lives.events.day[ill]).all()
    repeated = past.take(np.array([7, 7, 3]))
    assert np.array_equal(state_at(world, repeated, block.lives.end[[7, 7, 3]]).onset, at_end.onset[[7, 7, 3]])


def test_the_oracle_asks_for_the_cohorts_heart_failure():
    assert set(HEART_FAILURE) == set(load_spec("dhf-landmark").code_set("heart_failure").prefixes)
