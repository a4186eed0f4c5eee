"""The report as files: what is written, equal bytes, warnings that the data earn, groups of rules, reruns, refusals."""

import csv
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from evaluation.made_patients import made_patients, made_risks, model
from reporting.made_report import MODEL, made_attrition, made_cohort, made_evaluation, made_figures, made_runs

from medbert_jax.attrition.disclosure import SMALLEST
from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.attrition.steps import Attrition
from medbert_jax.cohorts.loading import load_spec
from medbert_jax.evaluation.design import MATCHED, Design
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.reporting.cohort_facts import CohortFacts
from medbert_jax.reporting.earned_warnings import earned_warnings
from medbert_jax.reporting.grouped_attrition import grouped
from medbert_jax.reporting.paper_flows import paper_flow
from medbert_jax.reporting.question import question
from medbert_jax.reporting.report import hides_training, report_section, write_report
from medbert_jax.reporting.report_tables import headline_table, headline_words
from medbert_jax.reporting.reported_models import AGE_AND_SEX, SHAPE, headline, in_order, largest_size, with_names
from medbert_jax.reporting.threshold_counts import threshold_counts


@pytest.fixture(scope="module")
def shared():
    """A section to be shared."""
    return report_section(made_cohort(), share=True)


def test_a_report_has_every_table_and_figure_as_files_and_the_same_bytes_again(tmp_path, monkeypatch):
    monkeypatch.setattr("medbert_jax.reporting.report._figures", lambda *_: made_figures())
    page = write_report([made_cohort()], tmp_path / "out")
    names = sorted(path.name for path in page.parent.iterdir())
    slug = "dhf-made-xxxxxxxx"
    assert [name for name in names if name.endswith((".svg", ".html"))] == [
        *sorted(f"{slug}__{one}.svg" for one in ("calibration", "decision", "differences", "flow", "groups", "learning",
                                                 "precision-recall", "roc")), "report.html"
    ]  # fmt: skip
    assert {name.split("__")[1] for name in names if name.endswith(".csv")} >= {
        "headline.csv", "metrics.csv", "thresholds.csv", "differences.csv", "sizes.csv", "runs.csv", "tripod-ai.csv",
        "probast.csv", "paper-flow.csv"
    }  # fmt: skip
    assert sum(name.endswith(".png") for name in names) == 7
    rows = list(csv.reader((page.parent / f"{slug}__headline.csv").read_text().splitlines()))
    assert rows[0][:2] == ["model", "AUROC"] and rows[1][0] == MODEL and len(rows) == 4
    before = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    (page.parent / "notes.txt").write_text("kept")
    (page.parent / f"{slug}__of-an-earlier-one.csv").write_text("gone")
    write_report([made_cohort()], tmp_path / "out")
    after = {path.name: path.read_bytes() for path in page.parent.iterdir()}
    assert after == before | {"notes.txt": b"kept"}
    assert b"http" not in before["report.html"].replace(b"http-equiv", b"")  # nothing to ask for


def test_a_figure_is_the_same_again_and_asks_for_nothing():
    from medbert_jax.reporting.figures import draw

    one, two = (next(draw(made_evaluation(), [MODEL], None)) for _ in range(2))
    assert one == two and one.slug == "roc" and one.png.startswith(b"\x89PNG")
    assert "<script" not in one.svg and 'href="http' not in one.svg


def test_a_folder_with_results_or_records_is_refused(tmp_path):
    (tmp_path / "review.html").touch()
    with pytest.raises(ValueError, match=r"must have a folder of its own: got .* with review.html in it; name another"):
        write_report([made_cohort()], tmp_path)


def test_a_shared_section_shows_no_small_count(shared):
    tables = [table for _, table in shared.tables] + [shared.headline, shared.paper_flow]
    cells = [cell for table in tables for row in table.rows for cell in row]
    assert "hidden" in cells
    groups = next(table for slug, table in shared.tables if table.title == "AUROC by group")
    counts = [cell for row in groups.rows for cell in row[1:3] if cell != "hidden"]
    assert counts and all(int(cell.replace(",", "")) >= SMALLEST for cell in counts)
    assert {drawn.slug for drawn in shared.figures} >= {"roc", "precision-recall", "calibration", "decision", "groups"}
    assert shared.thresholds is not None


def test_a_training_size_that_tells_what_the_flow_hides_is_not_shown(monkeypatch):
    """2,000 patients are trained on; a validation split of 3 hides behind the training split in the flow."""
    monkeypatch.setattr("medbert_jax.reporting.report._figures", lambda *_: ())
    counts = made_evaluation().about["counts"]
    train, test = Counts(2_000), Counts(counts["cases"] + counts["controls"])
    for few, hidden in ((3, True), (300, False)):
        ledger = Ledger.start("made", patients=2_000 + few + test.patients)
        attrition = Attrition([ledger], {"train": train, "validation": Counts(few), "test": test})
        section = report_section(made_cohort(attrition=attrition), share=True)
        tables = [section.headline, *(table for _, table in (*section.tables, *section.checklists))]
        said = [text for table in tables for row in (*table.rows, table.notes) for text in row]
        assert any("2,000" in text and "draws" not in text for text in said) != hidden
    assert hides_training(made_attrition(50, 700), made_runs().with_columns(train_size=3_295))  # 5 labels unknown
    assert not hides_training(made_attrition(50, 700), made_runs().with_columns(train_size=3_300))


# ── warnings ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def warned(facts: CohortFacts | None = None, share: bool = False, **changes) -> str:
    return "\n".join(earned_warnings(made_cohort(**changes), facts or CohortFacts(), share=share))


def bad_evaluation(censored: int = 0):
    """Few cases, a model whose risks are too extreme, and baselines as good as it."""
    label, risk = made_risks(300, 3)
    extreme = risk**3 / (risk**3 + (1 - risk) ** 3)
    label[:censored] = -1
    weight = (label >= 0).astype(float)
    models = [model(MODEL, extreme), model(SHAPE, risk), model(AGE_AND_SEX, risk)]
    return evaluate(made_patients(label, weight=weight), models, EvaluationSettings(draws=100, reference=MODEL))


def test_warnings_are_those_that_the_data_earn():
    good = warned(metadata={"source": {"format": "omop"}, "split": {}}, spec=load_spec("dhf-landmark"))
    assert good == ""
    said = warned()
    for start in (
        "Simulated data",
        "A spec with a known flaw",
        "Scores, and no risks",
        "Rules that look after the index",
    ):
        assert f"\n{start}" in f"\n{said}"
    facts, landmark = CohortFacts(300, 12, 25), load_spec("dhf-landmark")
    bad = warned(facts, evaluation=bad_evaluation(20), spec=landmark, metadata={"split": {}})
    for start in (
        "Outcome codes in the input of 12 of 300",
        "Competing deaths: 25",
        "Labels censored: of 20",
        "Fewer than 100 test cases (",
        "Shape alone comes close",
        f"Brier score worse than that of {AGE_AND_SEX}",
        "Calibration slope far from 1: 0.28",
    ):
        assert f"\n{start}" in f"\n{bad}"
    gone = made_runs().with_columns(pl.lit("another run").alias("run_id"), pl.lit("").alias("variant"))
    more = with_names(pl.concat([made_runs().with_columns(variant=pl.lit("")), gone.filter(train_size_name="all")]))
    assert "\nRuns without predictions: 1 of the training size" in warned(runs=more)
    assert "known flaw" not in bad and "look after" not in bad


def test_risks_in_the_wrong_order_are_not_called_too_extreme():
    label, risk = made_risks(300, 3)
    models = [model(MODEL, 1 - risk), model(SHAPE, risk), model(AGE_AND_SEX, risk)]
    inverted = evaluate(made_patients(label), models, EvaluationSettings(draws=100, reference=MODEL))
    for evaluation, words in ((inverted, "no order or the wrong one"), (bad_evaluation(), "too extreme")):
        (slope,) = [line for line in warned(evaluation=evaluation).split("\n") if line.startswith("Calibration slope")]
        assert words in slope


def test_no_shared_warning_has_a_count():
    said = warned(CohortFacts(300, 7, 3), True, evaluation=bad_evaluation(5), spec=load_spec("dhf-landmark"))
    assert "Outcome codes in the input of some test patients" in said and "Competing deaths: Some" in said
    assert "of some test patients" in said and "Fewer than 100 test cases:" in said


# ── the flow ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_grouped_rules_add_up_and_are_few():
    attrition = made_attrition(50, 700)
    small = grouped(attrition)
    assert sum(any(vars(line.left).values()) for line in small.steps[0].lines) == 8
    assert small.steps[0].kept == attrition.steps[0].kept and small.branches == attrition.branches
    assert "few+rule_0" in {line.rule for line in small.steps[0].lines}
    assert "idle" in {line.rule for line in small.steps[0].lines}
    assert grouped(attrition, most=100).steps[0].lines == attrition.steps[0].lines


def test_the_papers_counts_stand_beside():
    table = paper_flow("dhf", made_attrition(50, 700))
    assert table.rows == (
        ("patients with a diabetes code", "3,668,780", "5,790"),
        ("cases", "39,727", "1,050"),
        ("controls", "632,920", "3,800"),
    )
    assert paper_flow("hf-later", made_attrition(50, 700)) is None
    assert [row[2] for row in paper_flow("dhf", made_attrition(5, 700), share=True).rows[1:]] == ["hidden", "hidden"]


# ── which model, which words ──────────────────────────────────────────────────────────────────────────────────────────


def test_the_model_of_the_page_is_chosen_on_validation_patients():
    rows = with_names(made_runs().with_columns(variant=pl.lit("")))
    feed = rows.filter(backbone="pretrained").with_columns(
        head=pl.lit("feed_forward"), model=pl.lit("Med-BERT pretrained, feed-forward"), value=pl.col("value") + 0.2
    )
    both = pl.concat([rows, feed])
    validated = both.filter(metric="auroc", backbone="pretrained").with_columns(
        split=pl.lit("validation"), value=pl.when(pl.col("head") == "bi_gru").then(0.8).otherwise(0.7)
    )
    found = pl.concat([both, validated])
    assert largest_size(found) == "all"
    assert headline(found) == MODEL  # the other is better on test patients
    order = in_order(found.select("backbone", "model").iter_rows(), MODEL)
    assert order == [MODEL, "Med-BERT pretrained, feed-forward", SHAPE, AGE_AND_SEX]


def test_the_headline_is_the_figure_and_what_it_gains():
    evaluation = made_evaluation()
    table, words = headline_table(made_cohort(), evaluation), headline_words(made_cohort(), evaluation)
    rows = {row[0]: row for row in table.rows}
    assert words.startswith(f"AUROC {rows[MODEL][1]}: {rows[SHAPE][-2]} over {SHAPE}")
    stored = evaluation.figures.filter(kind="difference of models", metric="auroc", model=SHAPE).row(0, named=True)
    assert rows[SHAPE][-2] == f"{-stored['value']:+.3f} [{-stored['high']:.3f}, {-stored['low']:.3f}]".replace("-", "−")
    assert any("looked at 6 times, once by each run" in note for note in table.notes)
    assert any(note.startswith("Estimand: a risk within 365 days") for note in table.notes)


def test_a_matched_cohort_has_what_its_design_allows():
    random = np.random.default_rng(0)
    label = np.tile([1, 0, 0], 100).astype(np.int8)
    risks = [np.clip(0.6 * random.random(300) + gain * label, 0, 1) for gain in (0.2, 0.0)]
    patients = made_patients(label, Design("matched sets", "score", None, MATCHED), sets=np.repeat(np.arange(100), 3))
    settings = EvaluationSettings(draws=100, reference=MODEL)
    evaluation = evaluate(patients, [model(MODEL, risks[0]), model(SHAPE, risks[1])], settings)
    cohort = made_cohort(evaluation=evaluation, spec=load_spec("dhf-matched"), models=(MODEL, SHAPE))
    section = report_section(cohort)
    assert section.headline.columns[:3] == ("model", "AUROC", "concordance within sets")
    assert {drawn.slug for drawn in section.figures} == {"roc", "differences", "learning"}
    assert section.thresholds is None
    assert any(line.startswith("Absolute risks (Brier, calibration") for line in section.warnings)


@pytest.mark.parametrize("changed", [{"estimand": "score"}, {"refused": MATCHED}])
def test_no_slider_where_nobody_could_act_on_what_the_model_gives(changed):
    evaluation = made_evaluation()
    assert threshold_counts(evaluation, [MODEL]) is not None
    design = evaluation.about["design"] | changed
    assert threshold_counts(replace(evaluation, about=evaluation.about | {"design": design}), [MODEL]) is None


def test_the_question_is_one_sentence():
    said = question(made_cohort())
    assert said.startswith("Heart failure among patients with type 2 diabetes: can the encounters before the index")
    assert said.endswith("tell who will have this outcome: heart failure?") and said.count("?") == 1
    assert question(made_cohort(spec=None, metadata=None)) == ""


def test_without_its_dataset_a_page_has_what_the_results_have():
    section = report_section(
        replace(made_cohort(evaluation=None), evaluation=None, spec=None, metadata=None, attrition=None, missing="gone")
    )
    assert section.headline is None and section.figures == () and section.missing == "gone"
    assert [slug for slug, _ in section.tables] == ["sizes", "runs"]
    assert dict(section.checklists)["tripod-ai"].rows[0] == ("1", "Title: model, target population, outcome",
                                                             "author must write")  # fmt: skip
