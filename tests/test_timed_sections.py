"""A benchmark in sections: one that fails or takes too long is told as such, and stops no other."""

import json
import sys

import pytest

from benchmarks.timed_sections import Section, all_fine, run_sections, summary

TELL = "import json, os, sys, time; tell = lambda **said: print(json.dumps(said), flush=True); "
FIGURES = {"seen": lambda figures: str(figures.get("seen", ""))}


def section(program: str, seconds: float = 20.0) -> Section:
    return Section([sys.executable, "-S", "-c", TELL + program], seconds)


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("tell(figures={'seen': 1}); sys.exit('no such kernel')", "ended with 1"),
        ("tell(figures={'seen': 1}); os.kill(os.getpid(), 11)", "ended with -11"),
        ("tell(figures={'seen': 1}); print('loading')", "JSONDecodeError"),
    ],
    ids=["raises", "is killed", "says no JSON"],
)
def test_a_section_that_fails_stops_no_other(program, why, tmp_path):
    out = tmp_path / "new" / "found.json"
    last = section("tell(scale=1); tell(figures={'seen': 2}); tell(figures={'more': 3})")
    record = run_sections({"first": section(program), "last": last}, out, patients="made")
    assert json.loads(out.read_text()) == record and record["patients"] == "made"
    first, last = record["sections"].values()
    assert first["state"] == "failed" and why in first["why"] and first["figures"] == {"seen": 1}
    assert ("no such kernel" in first["said"]) == ("no such kernel" in program)
    assert last["state"] == "done" and last["figures"] == {"seen": 2, "more": 3} and last["scale"] == 1
    assert not all_fine(record)
    assert [row[-1] for row in summary(record, FIGURES).rows] == ["1", "2"]


def test_a_section_has_its_time_and_what_others_left(tmp_path):
    sections = {
        "hangs": section("tell(figures={'seen': 1}); time.sleep(60)", 1.0),
        "is left out": section("tell(left_out='no torch')", 20.0),
        "takes what is left": section("time.sleep(0.5); tell(figures={'seen': 2})", 0.2),
    }
    found = run_sections(sections, tmp_path / "found.json")["sections"]
    assert [one["state"] for one in found.values()] == ["out of time", "left out", "done"]
    assert found["hangs"]["figures"] == {"seen": 1} and found["hangs"]["seconds"] < 10
    assert found["is left out"]["left_out"] == "no torch"


def test_a_section_without_time_is_not_begun(tmp_path):
    # So little that the first one, ended at its time, has always taken it.
    late = section("tell(figures={'seen': 1})", 1e-6)
    record = run_sections({"hangs": section("time.sleep(60)", 0.5), "late": late}, tmp_path / "found.json")
    assert record["sections"]["late"] == {"state": "not begun", "figures": {}, "why": "0 s were left of 0"}
    assert not all_fine(record)


def test_all_is_fine_where_the_rest_is_left_out(tmp_path):
    sections = {"one": section("tell(figures={'seen': 1})"), "other": section("tell(left_out='no torch')")}
    assert all_fine(run_sections(sections, tmp_path / "found.json"))
