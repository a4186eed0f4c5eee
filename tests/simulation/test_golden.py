"""What is simulated stays the same, cell by cell: the content of every site and world is that of the golden file."""

import json
import platform
from dataclasses import replace

import pytest
from golden import make_simulated

from medbert_jax.simulation.clinical import Clinic
from medbert_jax.simulation.parameters import SITES, WORLDS

EVERY_WORLD = tuple(f"{SITES[place % 2]} {world}" for place, world in enumerate(WORLDS))
THE_OTHERS = tuple(f"{SITES[1 - place % 2]} {world}" for place, world in enumerate(WORLDS))


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="golden for the arithmetic of x86-64")
@pytest.mark.parametrize("names", [EVERY_WORLD, pytest.param(THE_OTHERS, marks=pytest.mark.slow)], ids=" and ".join)
def test_every_site_and_world_is_what_it_was(names):
    """A difference that is wanted is another `ENGINE`, and the golden file made anew by make_simulated.py."""
    golden = json.loads(make_simulated.FILE.read_bytes())
    assert {*EVERY_WORLD, *THE_OTHERS} == golden["contents"].keys()
    expected = {name: golden["contents"][name] for name in names}
    found = make_simulated.made_with_golden_arithmetic(names)
    assert found == expected, f"recorded with numpy {golden['numpy']}"


def test_one_draw_that_differs_is_seen(monkeypatch):
    before, made = make_simulated.contents("cerner", "rich", patients=60), Clinic.measurements

    def with_another_draw(*args):
        rows = made(*args)
        value = rows.value.copy()
        value[7] += 0.1
        return replace(rows, value=value)

    monkeypatch.setattr(Clinic, "measurements", with_another_draw)
    after = make_simulated.contents("cerner", "rich", patients=60)
    assert [name for name in before if after[name] != before[name]] == ["ehr/measurements"]
    assert before.keys() == after.keys() and len(before) == 13
