"""What a chart shows as evidence is what the interpreter counted, for every rule of every built-in cohort."""

import dataclasses

import polars as pl
import pytest
from drawn_patients import explain, person, tables_of, visit
from made_ehr import made_tables

from medbert_jax.chart_review import evidence_rows
from medbert_jax.chart_review.charts import charts
from medbert_jax.chart_review.chosen_patients import _judged, chart_of, draw_charts
from medbert_jax.chart_review.rule_words import asked, entry_words, when
from medbert_jax.chart_review.text import chart_text
from medbert_jax.cohorts.life import in_life
from medbert_jax.cohorts.loading import SPECS_DIRECTORY, load_spec, parse_spec
from medbert_jax.cohorts.record import visits_with_code_sets
from medbert_jax.cohorts.select import select_cohort
from medbert_jax.description.chart import Annotation
from medbert_jax.ehr.schema import EhrTables
from medbert_jax.ehr.tables import write_tables

BUILT_IN = sorted(path.stem for path in SPECS_DIRECTORY.glob("*.yaml"))
E11, HF = "ICD10CM/E11.9", "ICD10CM/I50.9"
PEOPLE = {
    "case": person(
        visit("2010-01-05", "250.00 401.9"), visit("2011-02-01", "250.02"), visit("2012-03-01", "428.0", 4),
        visit("2012-05-01", "428.0"), drugs=[(1, "metformin"), ("2012-03-02", "furosemide")],
        results=[("2012-03-01", "30934-4", 900.0, "pg/mL")],
    ),
    "control": person(
        visit("2010-01-05", "250.00"), visit("2011-04-01", "401.9"), visit("2012-01-01", "250.00", 3),
        visit("2013-06-01", "V70.0"), results=[(1, "4548-4", 7.1, "%"), (3, "4548-4", 5.1, "%")],
    ),
    "early": person(visit("2010-01-05", "250.00 428.0"), visit("2011-02-01", "250.02 428.0"), drugs=[(1, "insulin")]),
    "unverified": person(visit("2010-01-05", "250.00"), visit("2011-02-01", "250.02"), drugs=[(None, "metformin")]),
    "wrong": person(
        visit("2010-01-05", "250.00"), visit("2011-02-01", "250.02", discharge="2011-01-20"), drugs=[(1, "insulin")]
    ),
    "undated": person(visit(None, "250.00"), visit("2011-02-01", "250.02"), visit("2012-05-01", "157.0 250.00")),
    "dead": person(visit("2010-01-05", "250.00"), visit("2014-02-01", "250.02"), died="2012-01-01", born=None),
    "cancer": person(visit("2010-01-05", "174.9"), visit("2011-01-05", "157.1"), visit("2012-01-05", f"{E11} {HF}")),
    "young": person(visit("2010-01-05", E11), visit("2012-01-07", f"{E11} {HF}"), born="2000-02-29"),
    "procedure": person(
        visit("2010-01-05", E11), visit("2011-01-06", E11), visit("2012-01-07", HF), visit("2012-09-07", HF),
        procedures=[("2012-02-01", "CPT4/90960")], drugs=[("2010-01-05", "x"), ("2010-01-05", "Insulin glargine")],
    ),
    "nobody": person(),
}  # fmt: skip


def sources() -> list[EhrTables]:
    drawn = tables_of(PEOPLE | {f"{name}2": one for name, one in PEOPLE.items()})
    made = made_tables(250, seed=3)
    made = dataclasses.replace(made, source=dataclasses.replace(made.source, last_day="2020-01-01"))
    return [drawn, made, with_follow_up(drawn), with_follow_up(made)]


def with_follow_up(tables: EhrTables) -> EhrTables:
    """Nobody, or from a year before his second or third visit on, or until his first one and from the last one on."""
    days = tables.visits.select("patient_id", "order", day=pl.col("admit_time").dt.date()).drop_nulls()
    day, year = pl.col("day"), pl.duration(days=365)
    kind = pl.col("patient_id").hash(seed=1) % 4
    long = days.filter(kind < 2, pl.col("order") == kind + 2).select("patient_id", start=day - year, end=day + year)
    first = days.filter(kind == 2).group_by("patient_id").agg(start=day.min() - year, end=day.min())
    last = (
        days.filter(kind == 2).group_by("patient_id").agg(start=day.max() + pl.duration(days=1), end=day.max() + year)
    )
    return dataclasses.replace(tables, follow_up=pl.concat([long, first, last]).sort("patient_id", "start"))


def everybody(tables: EhrTables, spec) -> dict:
    judged, lines = _judged(tables, spec)
    return dict(charts(tables, spec, judged, lines, {}))


def disagreements(tables: EhrTables, spec) -> tuple[list[tuple], set[tuple]]:
    """Conditions whose evidence does not tell what the interpreter says of them; and which outcomes were seen."""
    wrong, seen = [], set()
    needed = 2 if getattr(spec.index, "everyone", None) == "second_visit" else 1
    # Visits in life, each of which may be the index, but of an episode one alone.
    possible = visits_with_code_sets(in_life(tables).tables, spec).filter("stands").group_by("patient_id").len()
    possible = dict(possible.iter_rows())
    for patient_id, chart in everybody(tables, spec).items():
        skips = [said for said in chart.rules if said.rule.action == "skip_visit"]
        passed = sum(said.parts[0].measured for said in skips)
        no_index = any(said.says for said in skips)
        if skips and chart.visits:
            seen.add(("skip_visit", no_index))
            none_left = passed > 0 and possible[patient_id] - passed < needed
            wrong += [(chart.group, passed)] * (no_index != none_left)
        for said in chart.rules:
            for part in said.parts:
                of = part.condition
                if part.holds is None or of.measure == "days_of_follow_up":
                    continue
                covering = [one.code for one in part.evidence if one.kind == "follow_up" and one.role]
                if of.measure == "days_of_lookback" and covering:
                    (words,) = covering
                    shown = f"begins {of.limit} days or more before" in words
                    shown = shown if of.at_least is not None else not shown
                elif of.unknown:
                    shown = part.measured is None
                elif part.measured is None:
                    shown = of.fewer_than is not None and not of.measure.startswith("age")
                else:
                    enough = part.measured >= (of.at_least or of.fewer_than)
                    shown = enough if of.at_least is not None else not enough
                looks_at_index = of.window in ("before_index", "through_index", "by_index_date", "index_visit")
                looks_at_index |= of.measure in (
                    "days_to_index",
                    "age_at_index",
                    "days_of_lookback",
                    "enrolled_at_index",
                )
                if looks_at_index and not chart.from_index:
                    continue  # such a condition says nothing of those who have no index
                seen.add((of.measure, shown))
                if shown != part.holds:
                    wrong.append((said.rule.id, part.measured, part.holds))
    return wrong, seen


@pytest.mark.parametrize("name", BUILT_IN)
def test_evidence_is_there_exactly_where_the_condition_is_met(name):
    seen = set()
    for tables in sources():
        wrong, of_these = disagreements(tables, load_spec(name))
        assert wrong == []
        seen |= of_these
    assert {shown for _, shown in seen} == {True, False}


def test_evidence_read_in_another_way_is_found(monkeypatch):
    spec, tables = load_spec("dhf-landmark"), sources()[0]
    assert disagreements(tables, spec)[0] == []
    monkeypatch.setattr(evidence_rows, "counted", lambda leaf, spec: leaf.rows())
    assert disagreements(tables, spec)[0] != []


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_chart_says_what_the_interpreter_says(name):
    spec, tables = load_spec(name), sources()[0]
    told, (frame, _) = explain(tables, spec), select_cohort(tables, spec)
    found = everybody(tables, spec)
    for row in told.iter_rows(named=True):
        chart = found[row["patient_id"]]
        assert {said.rule.id: said.says for said in chart.rules if " " not in said.rule.id} == {
            rule.id: row[rule.id] for rule in spec.rules
        }
        assert (chart.group in ("cases", "controls")) == (row["leaves_under"] is None)
        assert row["leaves_under"] in (None, chart.group)
    for row in frame.iter_rows(named=True):
        read = [visit.order for visit in found[row["patient_id"]].visits if visit.is_read]
        assert read == list(range(1, row["input_until"] + 1))


def test_a_drawn_case_shows_what_fired():
    chart = everybody(tables_of({"case": PEOPLE["case"]}), load_spec("dhf"))["case"]
    assert (chart.group, chart.from_index) == ("cases", True)
    assert chart.outcome == "Label 1; 2 of 4 encounters are in the input that ends at day 0"
    assert chart.annotations == (Annotation("index", "index", 0, 3), Annotation("cut", "input ends", 0, 2.5))
    assert [(visit.day, visit.is_read) for visit in chart.visits] == [
        (-786, True),
        (-394, True),
        (0, False),
        (61, False),
    ]
    said = {said.rule.id: said for said in chart.rules}
    shown = {
        id: [(one.kind, one.day, one.code, one.value) for part in said[id].parts for one in part.evidence]
        for id in ("codes of the outcome", "diabetes_unverified", "hf_unverified", "hf_too_early", "type_1_diabetes")
    }
    assert shown == {
        "codes of the outcome": [("diagnosis", 0, "ICD9CM/428.0", None), ("diagnosis", 61, "ICD9CM/428.0", None)],
        "diabetes_unverified": [("medication", -786, "metformin", None)],
        "hf_unverified": [("medication", 1, "furosemide", None), ("measurement", 0, "LOINC/30934-4", 900.0)],
        "hf_too_early": [("diagnosis", 0, "ICD9CM/428.0", None), ("diagnosis", -786, "ICD9CM/250.00", None)],
        "type_1_diabetes": [],
    }
    assert said["hf_too_early"].parts[0].measured == 786
    assert [one.marks for one in chart.visits[2].codes] == [
        ("codes of the outcome", "hf_one_encounter", "hf_too_early")
    ]


def test_what_covers_the_prediction_is_shown_and_no_day_that_would_tell_the_date():
    """Index on 2010-01-05, 400 days after the first visit."""
    enrolled = {"id": "not_enrolled", "description": "x", "tag": "ours", "action": "flag",
                "when": {"measure": "enrolled_at_index", "fewer_than": 1}}  # fmt: skip
    lookback = {"id": "short", "description": "x", "tag": "ours", "action": "flag",
                "when": {"measure": "days_of_lookback", "fewer_than": 365}}  # fmt: skip
    spec = load_spec("af-after-hypertension").to_dict() | {"rules": [enrolled, lookback]}
    spec = parse_spec(spec | {"follow_up": {"bridge_days": 30, "description": "x", "tag": "ours"}}, source="made")
    visits = (visit("2008-12-01", "250.00"), visit("2010-01-05", "401.9", 2))
    times = {
        "long": [("2009-01-07", "2012-01-01")],  # 365 days before the discharge
        "short": [("2009-01-08", "2012-01-01")],
        "bridged": [("2008-01-01", "2009-06-01"), ("2009-07-02", "2010-01-07")],
        "apart": [("2008-01-01", "2009-06-01"), ("2009-07-03", "2010-01-07")],
        "before_and_after": [("2008-01-01", "2010-01-06"), ("2010-02-08", "2012-01-01")],
        "never": [],
    }
    tables = tables_of({name: person(*visits, followed=of) for name, of in times.items()})
    covers, ends = "a time that covers the day of the prediction", "a time that ends before the day of the prediction"
    more, less = f"{covers} and begins 365 days or more before it", f"{covers} and begins less than 365 days before it"
    starts = "a time that begins after the day of the prediction"
    hidden = "not shown, it would tell the date"
    told = {}
    for name, chart in everybody(tables, spec).items():
        said = {said.rule.id: said.parts[0] for said in chart.rules if " " not in said.rule.id}
        told[name] = [
            (
                asked(part, spec).split(": ")[1].split(";")[0],
                [(when(one), entry_words(one, chart)[1]) for one in part.evidence],
            )
            for part in (said["not_enrolled"], said["short"])
        ]
        text = chart_text(chart, spec)
        assert "day 2  prediction" in text and "2009" not in text and "363" not in text
        assert all(words in text for part in said.values() for one in part.evidence for words in [one.code or ""])
        assert (hidden in text) == (name in ("long", "short", "bridged", "apart"))
    at, followed = ("day 2", "prediction"), "followed"
    assert told == {
        "long": [("1", [at, (followed, covers)]), (hidden, [at, (followed, more)])],
        "short": [("1", [at, (followed, covers)]), (hidden, [at, (followed, less)])],
        "bridged": [("1", [at, (followed, covers)]), (hidden, [at, (followed, more)])],
        "apart": [("1", [at, (followed, covers)]), (hidden, [at, (followed, less)])],
        "before_and_after": [("0", rows := [(followed, starts), (followed, ends), at]), ("unknown", rows)],
        "never": [("0", [at]), ("unknown", [at])],
    }


def test_without_the_table_the_first_visit_is_what_lookback_rests_on():
    people = {
        "one": person(visit("2009-12-01", "250.00", kind="inpatient"), visit("2011-01-05", "1", 2, kind="inpatient"))
    }
    spec = load_spec("acute-mi-1y")
    chart = everybody(tables_of(people), spec)["one"]
    (part,) = next(said for said in chart.rules if said.rule.id == "short_lookback").parts
    assert (part.measured, part.holds) == (0, True)
    assert [(one.kind, one.day, one.visit, one.role) for one in part.evidence] == [
        ("prediction", 0, None, ""), ("visit", 0, 1, "since"),
    ]  # fmt: skip


def test_a_table_that_is_missing_is_said_to_be():
    tables = tables_of(PEOPLE, without=("measurements",))
    found = everybody(tables, load_spec("dhf"))["control"]
    parts = next(said for said in found.rules if said.rule.id == "diabetes_unverified").parts
    assert [part.holds for part in parts] == [None, False]


@pytest.mark.parametrize(("name", "workers"), [("dhf-matched", 1), ("readmission-30d", 2)])
def test_one_patient_is_found_in_his_shard_as_he_was_drawn_by_any_processes(tmp_path, name, workers):
    spec = load_spec(name)
    people = {f"{who}{number}": one for number in range(4) for who, one in PEOPLE.items()}
    write_tables(tables_of(people), tmp_path / "ehr", shards=2)
    drawn = draw_charts(tmp_path / "ehr", spec, 2, workers=1)
    assert draw_charts(tmp_path / "ehr", spec, 2, workers=workers) == drawn
    assert draw_charts(tmp_path / "ehr", spec, 2, seed=1, workers=1) != drawn
    counts = pl.Series([chart.group for _, chart in drawn]).value_counts()["count"]
    assert counts.max() == 2 and len({chart.name for _, chart in drawn}) == len(drawn)
    for patient_id, chart in drawn[::3]:
        assert dataclasses.replace(chart_of(tmp_path / "ehr", spec, patient_id), name=chart.name) == chart
    with pytest.raises(ValueError, match="got one that is not in"):
        chart_of(tmp_path / "ehr", spec, "stranger")


def test_cases_and_controls_come_from_the_dataset(tmp_path):
    people = {f"{who}{number}": PEOPLE[who] for number in range(5) for who in ("case", "control", "early")}
    write_tables(tables_of(people), tmp_path / "ehr")
    pl.DataFrame({"patient_id": ["case3", "control1"]}).write_parquet(tmp_path / "cohort.parquet")
    drawn = draw_charts(tmp_path / "ehr", load_spec("dhf"), 9, members=tmp_path / "cohort.parquet", workers=1)
    assert [patient_id for patient_id, chart in drawn if chart.group in ("cases", "controls")] == ["case3", "control1"]
    assert len(drawn) == 7
