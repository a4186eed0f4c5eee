import json

import pytest

from medbert_jax.ehr.ledger import Counts, Ledger


def figure_1() -> Ledger:
    ledger = Ledger.start("pretraining cohort", patients=68_696_329)
    ledger.leave("diagnoses", "no diagnosis", tag="paper", patients=68_696_329 - 39_398_846)
    ledger.leave("times", "wrong recorded time", tag="paper", patients=196_319)
    ledger.leave("minimum_codes", "fewer than three unique codes", tag="paper", patients=10_711_877)
    return ledger


def test_figure_1_of_the_paper_adds_up():
    ledger = figure_1()
    assert ledger.kept == Counts(28_490_650, 0, 0)
    ledger.check(patients=28_490_650, visits=0, codes=0)


def test_check_sees_a_difference_of_one_at_each_level():
    ledger = Ledger.start("step", patients=10, visits=30, codes=90)
    ledger.leave("few", "fewer than two encounters", patients=1, visits=1, codes=3)
    ledger.check(patients=9, visits=29, codes=87)
    for off in ({"patients": 8}, {"visits": 30}, {"codes": 86}):
        with pytest.raises(ValueError, match=f"{next(iter(off))} .* and .* \\(ledger and data\\); find"):
            ledger.check(**{"patients": 9, "visits": 29, "codes": 87, **off})
    with pytest.raises(ValueError, match="patients 9 and 1; visits 29 and 2; codes 87 and 3"):
        ledger.check(patients=1, visits=2, codes=3)


def test_goes_through_json():
    ledger = figure_1()
    again = Ledger.from_dict(json.loads(json.dumps(ledger.to_dict())))
    assert again == ledger
    again.lines.pop()
    assert again != ledger
    record = ledger.to_dict()
    record["kept"]["patients"] += 1
    with pytest.raises(ValueError, match="difference 0"):
        Ledger.from_dict(record)


def test_merging_shards_adds_counts_and_keeps_both_alone():
    one = Ledger.start("step", patients=5, visits=9, codes=20)
    one.leave("a", "rule a", patients=1, visits=2, codes=3)
    one.leave("b", "rule b")
    two = Ledger.start("step", patients=7, visits=8, codes=9)
    two.leave("b", "rule b", visits=1)
    two.leave("c", "rule c", tag="group", codes=4)
    both = one.merge(two)
    assert both.came == Counts(12, 17, 29) and both.kept == Counts(11, 14, 22)
    assert [line.rule for line in both.lines] == ["a", "b", "c"]
    assert both.lines[1].left == Counts(0, 1, 0) and one.lines[1].left == Counts()
    assert one.kept == Counts(4, 7, 17) and two.kept == Counts(7, 7, 5)


def test_merging_another_step_is_refused():
    one, two = Ledger.start("step", patients=1), Ledger.start("step", patients=1)
    one.leave("a", "rule a")
    two.leave("a", "rule a in other words")
    with pytest.raises(ValueError, match="other words for a"):
        one.merge(two)
    with pytest.raises(ValueError, match='got "step" and "other"'):
        one.merge(Ledger.start("other", patients=1))


def test_refuses_impossible_counts():
    ledger = Ledger.start("step", patients=5, visits=5, codes=5)
    ledger.leave("a", "rule a", patients=3)
    with pytest.raises(ValueError, match="each rule once: got a again"):
        ledger.leave("a", "rule a", patients=1)
    with pytest.raises(ValueError, match="kept after b must be at least 0: got patients -1, codes -2"):
        ledger.leave("b", "rule b", patients=3, codes=7)
    with pytest.raises(ValueError, match="leaves under c must be at least 0: got visits -1"):
        ledger.leave("c", "rule c", visits=-1)
    with pytest.raises(ValueError, match='one of paper, group, ours: got "theirs"'):
        ledger.leave("d", "rule d", tag="theirs")
    assert [line.rule for line in ledger.lines] == ["a"]


def test_table_for_the_eye():
    ledger = Ledger.start("diabetes130 → hf-later", patients=71_518, visits=101_766, codes=303_496)
    ledger.leave("min_visits", "fewer than two encounters", patients=54_745, visits=54_745, codes=160_000)
    assert ledger.render().splitlines() == [
        "diabetes130 → hf-later",
        "                                 patients   visits     codes",
        "in                                 71,518  101,766   303,496",
        "fewer than two encounters  ours   −54,745  −54,745  −160,000",
        "kept                               16,773   47,021   143,496",
    ]
