"""A study's order and states: every stage once, after what it needs, by whoever comes first; resumed after any cut."""

import threading
from dataclasses import replace
from types import SimpleNamespace

import pytest

from medbert_jax.experiments import study as study_module
from medbert_jax.experiments import study_stages
from medbert_jax.experiments.grid import BaselineConfig, GridConfig
from medbert_jax.experiments.study import Study, run_study
from medbert_jax.experiments.study_estimate import Estimate, estimate_tables
from medbert_jax.experiments.study_plan import (
    Block,
    Cohort,
    Fold,
    Ingested,
    LeftOut,
    Pretraining,
    PretrainingData,
    Simulated,
    StudyPlan,
    Tuning,
    Vectors,
)
from medbert_jax.experiments.study_rates import Rates
from medbert_jax.experiments.study_stages import KINDS, place_of, receipt_path, stages_of
from medbert_jax.experiments.tuning import TuningConfig
from medbert_jax.printed_tables import table_text
from medbert_jax.training.command_line import shipped_preset
from medbert_jax.training.config import FinetuneConfig, PretrainConfig
from medbert_jax.training.sampling import SamplingConfig

GRID = GridConfig(rows=(("none", "gru"), ("pretrained", "gru")), train_sizes=(40,), replicates=2, baselines=("codes",))
PLAN = StudyPlan(
    tables=(Ingested("real"), Fold("real-0", "real", 0), Simulated("one", 2_000, 1), Simulated("two", 3_000, 2)),
    datasets=(
        PretrainingData("random", "one", expected=1_000, vocabulary_of="one"),
        PretrainingData("one", "one", expected=1_000),
        PretrainingData("real-0", "real-0", expected=500, mean_codes=5.0),
    ),
    pretrainings=(
        Pretraining("one", "one", PretrainConfig(epochs=2.0)),
        Pretraining("random", "random", PretrainConfig()),
        Pretraining("real-0", "real-0", PretrainConfig()),
    ),
    vectors=(Vectors("one", "one"),),
    cohorts=(
        Cohort("first", "dhf", "two", "one", expected=(700, 100, 200)),
        Cohort("random", "dhf", "two", "random", expected=(700, 100, 200)),
        Cohort("real-0", "los-next", "real-0", "real-0", expected=(700, 100, 200), seen=True),
    ),
    tunings=(Tuning("all", "first", "one", TuningConfig(baselines=("codes",)), vectors="one"),),
    blocks=(
        Block("table", ("first",), "one", replace(GRID, recipe="tuned"), tunings=("all",)),
        Block("folds", ("real-0",), "real-0", GRID),
    ),
    left_out=(LeftOut("a larger size", "the budget"),),
)
ORDER = [
    *("tables/one", "tables/two", "datasets/one", "cohorts/first", "pretrainings/one", "vectors/one", "tunings/all"),
    "blocks/table",
    *("tables/real", "tables/real-0", "datasets/real-0", "cohorts/real-0", "pretrainings/real-0", "blocks/folds"),
    *("datasets/random", "cohorts/random", "pretrainings/random"),
]


@pytest.fixture(autouse=True)
def text_for_results(monkeypatch):
    """Results of stages are files of text, which is what identifies them."""

    def found_at(kind, path):
        return path.read_text() if path.is_file() else None

    for module in (study_module, study_stages):
        monkeypatch.setattr(module, "found_at", found_at)


class Makers(dict):
    """Makers that write the name of the item, and remember what they were asked for; `cut` may raise, at any moment."""

    def __init__(self, cut=lambda when, key: None):
        super().__init__({kind: lambda item, study, kind=kind: self._make(kind, item, study) for kind in KINDS})
        self.made, self.cut = [], cut

    def _make(self, kind, item, study):
        key = f"{kind}/{item.name}"
        self.made.append(key)
        self.cut("before", key)
        if kind == "blocks":
            return study.results
        path = place_of(study.out, kind, item.name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"content of {key}")
        self.cut("after", key)
        return path


def study_in(tmp_path, plan=PLAN, **settings) -> Study:
    return Study(plan, tmp_path / "out", tmp_path / "results", **settings)


def test_stages_come_block_by_block_each_after_what_it_needs(tmp_path):
    stages = stages_of(PLAN)
    assert [stage.key for stage in stages] == ORDER
    for number, stage in enumerate(stages):
        assert {*stage.needs} <= {*ORDER[:number]}
    run_study(study_in(tmp_path), makers := Makers())
    assert makers.made == ORDER


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_study_that_is_cut_at_every_stage_goes_on_where_it_was(tmp_path, when):
    """After: the result is there, and the process is killed before it says so."""
    cuts = []

    def cut(moment, key):
        if moment == when and key not in cuts:
            cuts.append(key)
            raise KeyboardInterrupt

    made = []
    for _ in range(len(ORDER) + 1):
        makers = Makers(cut)
        try:
            run_study(study_in(tmp_path), makers)
        except KeyboardInterrupt:
            made += makers.made
            continue
        made += makers.made
        break
    expected = [key for key in ORDER if when == "before" or not key.startswith("blocks/")]
    assert cuts == expected
    # A stage that is done is not made again; blocks ask their own runs.
    assert [key for key in made if not key.startswith("blocks/")] == [
        key for key in ORDER if not key.startswith("blocks/") for _ in range(2)
    ]
    run_study(study_in(tmp_path), last := Makers())
    assert last.made == ["blocks/table", "blocks/folds"]


def test_what_is_asked_otherwise_or_changed_is_refused_and_what_is_gone_is_made_again(tmp_path):
    run_study(study_in(tmp_path), Makers())
    other = replace(PLAN, tables=(*PLAN.tables[:2], replace(PLAN.tables[2], seed=7), PLAN.tables[3]))
    with pytest.raises(ValueError, match=r"folder is of one plan: got tables/one in .*made by other settings"):
        run_study(study_in(tmp_path, other), Makers())
    longer = replace(PLAN, datasets=(PLAN.datasets[0], replace(PLAN.datasets[1], expected=2_000), PLAN.datasets[2]))
    run_study(study_in(tmp_path, longer), Makers())  # an expectation decides nothing
    place_of(tmp_path / "out", "vectors", "one").write_text("another")
    with pytest.raises(ValueError, match="must be the one that was made: got another in"):
        run_study(study_in(tmp_path), Makers())
    place_of(tmp_path / "out", "vectors", "one").unlink()
    run_study(study_in(tmp_path), makers := Makers())
    assert [key for key in makers.made if not key.startswith("blocks/")] == ["vectors/one"]
    # What came after it, from another content, is of another study.
    place_of(tmp_path / "out", "tables", "two").unlink()
    makers["tables"] = lambda item, study: place_of(study.out, "tables", item.name)
    place_of(tmp_path / "out", "tables", "two").write_text("other patients")
    receipt_path(tmp_path / "out", stages_of(PLAN)[1]).unlink()
    with pytest.raises(ValueError, match="got cohorts/first in"):
        run_study(study_in(tmp_path), makers)


def test_only_some_stages_are_made_and_what_they_need_must_be_there(tmp_path):
    run_study(study_in(tmp_path), makers := Makers(), only=("tables/one", "datasets/one"))
    assert (made := makers.made) == ["tables/one", "datasets/one"]
    with pytest.raises(ValueError, match="got cohorts/first without tables/two; take these too"):
        run_study(study_in(tmp_path), Makers(), only=("cohorts/first",))
    with pytest.raises(ValueError, match=r"--only takes kinds of stages, stages and blocks: got cohort; give some of"):
        run_study(study_in(tmp_path), Makers(), only=("cohort",))
    kinds = ("tables", "datasets", "pretrainings")
    run_study(study_in(tmp_path), makers := Makers(), only=kinds)
    assert makers.made == [key for key in ORDER if key.split("/")[0] in kinds and key not in made]


def test_a_stage_that_another_process_makes_is_left_to_it_and_waited_for(tmp_path, monkeypatch):
    begun, go_on = threading.Event(), threading.Event()
    waits = "tables/one: another process is making it; waiting"
    monkeypatch.setattr(study_module, "say", lambda line: go_on.set() if line == waits else None)
    theirs = Makers(lambda when, key: begun.set() or go_on.wait(60))
    (busy,) = [stage for stage in stages_of(PLAN) if stage.key == "tables/one"]
    other = threading.Thread(target=study_in(tmp_path).make, args=(busy, theirs))
    other.start()
    assert begun.wait(60)
    # All that does not need it is made meanwhile; then it is waited for, and the other goes on.
    run_study(study_in(tmp_path), makers := Makers())
    other.join(60)
    assert go_on.is_set()
    meanwhile = ["tables/two", "tables/real", "tables/real-0", "datasets/real-0", "cohorts/real-0"]
    assert makers.made[:7] == [*meanwhile, "pretrainings/real-0", "blocks/folds"]
    assert sorted([*makers.made, *theirs.made]) == sorted(ORDER)


def test_a_stage_that_comes_to_be_done_meanwhile_is_not_made_again(tmp_path):
    here, there = study_in(tmp_path), study_in(tmp_path)
    (stage,) = [stage for stage in here.stages() if stage.key == "tables/one"]
    assert not here.done(stage) and not there.done(stage)
    there.make(stage, Makers())
    here.make(stage, makers := Makers())
    assert makers.made == [] and here.done(stage)


# ── Before anything is made ───────────────────────────────────────────────────────────────────────────────────────────


def changed(**parts):
    return {part: (*getattr(PLAN, part), *more) for part, more in parts.items()}


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (changed(tables=[Simulated("one", 5, 5)]), "tables must have names of their own: got one twice; rename one"),
        (changed(tables=[Simulated("a b", 5, 5)]), "a name must become a file, letters, digits, .*: got 'a b'"),
        (changed(vectors=[Vectors("v", "none")]), "vectors must refer to what the plan has: got dataset none of v"),
        (changed(blocks=[Block("b", ("first", "last"), "one", GRID)]), "got cohorts last of b; name one of first"),
        (
            changed(tables=[Simulated("three", 5, 5, keep=("paca",))], cohorts=[Cohort("c", "dhf", "three", "one")]),
            "must be among those whose members are kept: got dhf of c and paca of three; add it there",
        ),
        (changed(blocks=[Block("b", ("first",), "one", GRID, tunings=("all",))]), "got recipe shared and 1 tunings"),
    ],
)
def test_a_plan_that_does_not_hold_together_is_refused(parts, words):
    with pytest.raises(ValueError, match=words):
        replace(PLAN, **parts)


def test_the_dry_run_shows_every_stage_and_run_and_makes_nothing(tmp_path):
    stages, table, folds, left_out = estimate_tables(study_in(tmp_path))
    assert [row[0] for row in stages.rows] == ORDER
    assert {row[1] for row in stages.rows if not row[0].startswith("blocks/")} == {"missing"}
    assert dict(row[:2] for row in stages.rows)["blocks/table"] == "0 of 10 runs done"
    # Standing baselines beside what the grid has: of two replicates three baselines and two fine-tunings.
    assert len(table.rows) == 10 and table.rows[0][:4] == ("first", "baseline", "codes", "40")
    assert ("first", "pretrained", "gru", "40", "1", "missing") in [row[:6] for row in table.rows]
    assert left_out.rows == (("a larger size", "the budget"),) and folds.title == "folds"
    assert not (tmp_path / "out").exists() and not (tmp_path / "results").exists()
    assert "Left: " in table_text(stages)


def test_durations_are_those_of_the_rates_by_hand(tmp_path):
    rates = Rates(pretrained=1_000.0, finetuned=100.0, predicted=1_000.0, begin_s=10.0, baseline_s=3.0,
                  passed=((40, 6.0), (100, 2.0)))  # fmt: skip
    plan = replace(PLAN, rates=rates)
    by_key = {stage.key: stage for stage in stages_of(plan)}
    estimate = Estimate(study_in(tmp_path, plan))
    # 1,000 patients of 15 codes, twice, at 1,000 codes/s; and 500 of 5 codes once.
    assert estimate.stage_seconds(by_key["pretrainings/one"]) == pytest.approx(30 + 10)
    assert estimate.stage_seconds(by_key["pretrainings/real-0"]) == pytest.approx(2.5 + 10)
    run = FinetuneConfig(train_size=40, evaluate_every=20, validation_size=50, backbone="none")
    # 40 × 6 patients of 10 codes; 12 validations of 50; 200 tested.
    expected = 10 + 240 * 10 / 100 + 12 * 50 * 10 / 1_000 + 200 * 10 / 1_000
    assert rates.run_seconds(run, (700, 100, 200), 10.0) == pytest.approx(expected)
    assert rates.run_seconds(run, (700, 100, 200), 10.0, tested=False) == pytest.approx(expected - 2)
    assert rates.run_seconds(BaselineConfig(), (700, 100, 200), 10.0) == 3.0
    assert [rates.patients_passed(size) for size in (10, 40, 99, 100, 5_000)] == [60, 240, 594, 200, 200]


def test_what_was_measured_takes_the_place_of_the_rates(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(study_module, "time", SimpleNamespace(monotonic=lambda: clock.now))
    study = study_in(tmp_path)

    def pass_time(when, key):
        if key == "pretrainings/one" and when == "after":
            clock.now += 60.0  # 1,000 patients of 15 codes, twice: 500 codes/s

    run_study(study, Makers(pass_time), only=("tables", "datasets", "pretrainings/one"))
    stages = {stage.key: stage for stage in study.stages()}
    monkeypatch.setattr(Estimate, "_counts", lambda self, stage: None)
    estimate = Estimate(study)
    assert estimate.stage_seconds(stages["pretrainings/real-0"]) == pytest.approx(500 * 5 / 500)
    assert estimate.stage_seconds(stages["pretrainings/random"]) == pytest.approx(1_000 * 15 / 500)


# ── What ships ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_the_papers_experiments_are_the_rows_of_its_table_once():
    table = shipped_preset("table4_paper")
    first, second, third = (shipped_preset(name) for name in ("ex1_table4", "ex2_base_models", "ex3_sizes"))
    assert sorted((*first.rows, *second.rows)) == sorted(table.rows) == sorted(third.rows)
    assert (first.baselines, second.baselines) == ((), table.baselines)
    heads = [preset.finetune.sampling for preset in (first, second)]
    assert heads == [SamplingConfig(resample="head")] * 2 and (first.train_sizes, first.replicates) == ((0,), 10)
    assert third.finetune.sampling == SamplingConfig(resample="bootstrap") and third.replicates == 10
    assert {preset.recipe for preset in (first, second, third)} == {"paper"}
    assert len({preset.finetune.experiment for preset in (first, second, third)}) == 3


@pytest.mark.parametrize("name", ["study_cpu", "study_paper"])
def test_the_shipped_plans_hold_together(name, tmp_path):
    plan = shipped_preset(name)
    stages = stages_of(plan)
    assert [stage.item for stage in stages if stage.kind == "blocks"] == [*plan.blocks]
    assert len(stages) == sum(len(getattr(plan, kind)) for kind in KINDS)
    for family in plan.confirmatory:
        (block,) = [block for block in plan.blocks if block.name == family.block]
        assert {*family.cohorts} <= {*block.cohorts} and family.train_size in block.grid.train_sizes
        rows = {(backbone, head) for head in family.heads for backbone in ("none", "pretrained")}
        assert len(rows) == 6 and rows <= {*block.grid.rows}
    cohorts = [cohort for family in plan.confirmatory for cohort in family.cohorts]
    assert cohorts == ["dhf-matched", "paca-matched", "paca-matched-truven"]
    # Nobody who is tested has been simulated for pretraining: other seeds, so other ids.
    tables = {one.name: one for one in plan.tables}
    of_datasets = {one.name: tables[one.tables] for one in plan.datasets}
    for cohort in plan.cohorts:
        theirs, ours = of_datasets[cohort.dataset], tables[cohort.tables]
        if isinstance(ours, Simulated) and isinstance(theirs, Simulated):
            assert (ours.seed, ours.site) != (theirs.seed, theirs.site) and not cohort.seen
        else:
            assert cohort.seen
    assert plan.left_out and all(one.what and one.why for one in plan.left_out)


def test_the_study_of_two_cores_takes_about_twelve_hours(tmp_path):
    plan = shipped_preset("study_cpu")
    estimate, alone, shared = Estimate(study_in(tmp_path, plan)), 0.0, 0.0
    for stage in stages_of(plan):
        if stage.kind == "blocks":
            shared += sum(run.seconds for run in estimate.runs(stage))
        elif stage.kind == "tunings":
            shared += estimate.stage_seconds(stage)
        else:
            alone += estimate.stage_seconds(stage)
    assert 10 < (alone + shared / plan.rates.processes) / 3600 < 12.5
