"""One evaluation: what each design allows, whom it compares and how, and that its figures are those of the metrics."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from evaluation.made_patients import EVERYBODY, made_patients, made_risks, model
from scipy.special import expit, logit

from medbert_jax.cohorts.censoring import with_censoring_weights
from medbert_jax.evaluation.design import MATCHED, UNWEIGHTED, Design
from medbert_jax.evaluation.evaluate import EvaluationSettings, evaluate
from medbert_jax.evaluation.evaluation_tables import evaluation_tables
from medbert_jax.evaluation.measures import Measures
from medbert_jax.metrics.clusters import auroc_obuchowski, within_set_concordance
from medbert_jax.metrics.discrimination import auroc_delong, average_precision, delong_difference
from medbert_jax.printed_tables import table_text

SETTINGS = EvaluationSettings(risks=(0.1, 0.3), draws=300)


@pytest.fixture(scope="module")
def two():
    """Labels, a model with the true risks, and one that knows half."""
    label, risk = made_risks(800, 0)
    noisy = expit(logit(risk) * 0.5 + np.random.default_rng(1).normal(-0.6, 0.8, 800))
    return label, risk, noisy


@pytest.fixture(scope="module")
def found(two):
    label, risk, noisy = two
    groups = np.where(np.arange(800) % 3 == 0, "female", "male")
    groups[:30] = "unknown"  # too few cases
    patients = made_patients(label, strata={"sex": groups, "race": np.full(800, "unknown")})
    return evaluate(patients, [model("noisy", noisy), model("true", risk)], SETTINGS)


def value(found, metric, at=None, *, name="true", kind="figure", stratum="everyone"):
    rows = found.figures.filter(
        pl.col("at").eq_missing(at), kind=kind, model=name, metric=metric, stratum=stratum
    ).to_dicts()
    (row,) = rows
    return row


def test_figures_are_those_of_the_metrics(two, found):
    label, risk, _ = two
    row, expected = value(found, "auroc"), auroc_delong(label, risk)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((expected.auroc, expected.low, expected.high))
    assert (row["how"], row["n"], row["cases"]) == ("DeLong", 800, label.sum())
    assert value(found, "average_precision")["value"] == pytest.approx(average_precision(label, risk))
    brier = value(found, "brier")
    squares = (label - risk) ** 2
    assert brier["value"] == pytest.approx(squares.mean()) and brier["how"] == "bootstrap"
    error = squares.std() / np.sqrt(800)
    assert (brier["low"], brier["high"]) == pytest.approx(
        (squares.mean() - 1.96 * error, squares.mean() + 1.96 * error), abs=0.5 * error
    )
    over = value(found, "net_benefit_over_all", 0.3)
    flagged, odds = risk >= 0.3, 0.3 / 0.7
    benefit = np.mean(label * flagged - odds * (1 - label) * flagged)
    assert over["value"] == pytest.approx(benefit - np.mean(label - odds * (1 - label)))
    assert value(found, "calibration_slope")["low"] < 1 < value(found, "calibration_slope")["high"]
    assert value(found, "calibration_slope", name="noisy")["value"] != pytest.approx(1, abs=0.05)


def test_models_are_compared_with_the_first_each_difference_with_its_test(two, found):
    label, risk, noisy = two
    differences = found.figures.filter(kind="difference of models")
    assert set(differences["model"]) == {"true"} and set(differences["reference"]) == {"noisy"}
    row, expected = value(found, "auroc", kind="difference of models"), delong_difference(label, risk, noisy)
    assert (row["value"], row["p"]) == pytest.approx((expected.difference, expected.p))
    assert row["how"] == "DeLong's paired test"
    tests = differences.group_by("family").len().sort("family").rows()
    assert tests == [("auroc, against noisy", 1), ("brier, against noisy", 1), ("net benefit, against noisy", 2)]
    benefits = differences.filter(metric="net_benefit").sort("p")
    assert benefits["p_holm"][0] == pytest.approx(min(1, 2 * benefits["p"][0]))
    brier = value(found, "brier", kind="difference of models")
    assert brier["value"] == pytest.approx(np.mean((label - risk) ** 2 - (label - noisy) ** 2))
    assert brier["high"] < 0 and brier["p"] < 0.05
    # Paired: much narrower than of two samples.
    alone = value(found, "brier")
    assert brier["high"] - brier["low"] < alone["high"] - alone["low"]


def test_groups_have_enough_cases_and_controls_and_gaps_to_the_largest(two, found):
    label, risk, _ = two
    figures = found.figures.filter(kind="figure", model="true", metric="auroc")
    assert set(figures["stratum"]) == {"everyone", "sex: female", "sex: male"}
    rows = np.arange(800)
    female, male = ((rows >= 30) & ((rows % 3 == 0) == is_female) for is_female in (True, False))
    of_female, of_male = (auroc_delong(label[of], risk[of]).auroc for of in (female, male))
    row = value(found, "auroc", stratum="sex: female", kind="difference of groups")
    assert row["value"] == pytest.approx(of_female - of_male) and row["reference"] == "sex: male"
    assert row["low"] < row["value"] < row["high"]
    assert any("groups that are not shown" in line and line.endswith("race") for line in found.about["said"])
    gaps = found.figures.filter(kind="difference of groups")
    assert {"sensitivity", "flagged", "brier"} < set(gaps["metric"])


def test_the_same_patients_give_the_same_figures_and_other_seeds_do_not(two, found):
    label, risk, noisy = two
    patients = made_patients(label)
    again = evaluate(patients, [model("true", risk), model("noisy", noisy)], SETTINGS)
    # The draws are of the patients, whoever is compared.
    assert value(again, "brier") == value(found, "brier")
    other = evaluate(patients, [model("true", risk)], replace(SETTINGS, seed=1))
    assert value(other, "brier")["low"] != value(found, "brier")["low"]
    assert value(other, "brier")["value"] == value(found, "brier")["value"]


def test_replicates_have_the_mean_of_their_figures_and_an_ensemble(two):
    label, risk, _ = two
    random = np.random.default_rng(2)
    replicates = [expit(logit(risk) + random.normal(0, 0.7, 800)) for _ in range(3)]
    found = evaluate(made_patients(label), [model("one", risk), model("three", *replicates)], SETTINGS)
    row = value(found, "auroc", name="three")
    assert row["value"] == pytest.approx(np.mean([auroc_delong(label, one).auroc for one in replicates]))
    assert row["how"] == "bootstrap of patients and replicates" and row["low"] < row["value"] < row["high"]
    together = value(found, "auroc", name="three, ensemble of 3")
    assert together["value"] == pytest.approx(auroc_delong(label, np.mean(replicates, axis=0)).auroc)
    assert together["value"] > row["value"] and together["how"] == "DeLong"
    difference = value(found, "auroc", name="three", kind="difference of models")
    assert difference["value"] == pytest.approx(row["value"] - value(found, "auroc", name="one")["value"])
    assert difference["how"] == "paired bootstrap of patients and replicates"
    assert any("conditional on the checkpoint" in line for line in found.about["said"])


def test_rows_of_a_patient_are_resampled_together_and_never_by_plain_delong(two):
    label, risk, noisy = two
    subject = np.char.mod("p%d", np.arange(800) // 4)
    found = evaluate(made_patients(label, subject=subject), [model("true", risk), model("noisy", noisy)], SETTINGS)
    row, expected = value(found, "auroc"), auroc_obuchowski(label, risk, subject)
    assert (row["value"], row["low"], row["high"]) == pytest.approx((expected.auroc, expected.low, expected.high))
    assert row["how"] == "Obuchowski, clustered by subject"
    assert value(found, "auroc", name="noisy", kind="difference of models")["how"] == "Obuchowski's paired test"
    assert found.about["counts"]["subjects"] == 200
    assert "800 rows of 200 subjects" in evaluation_tables(found)[0].notes[0]


def test_where_all_cases_are_of_one_patient_no_formula_holds(two):
    label, risk, _ = two
    subject = np.where(label == 1, "one", np.char.mod("p%d", np.arange(800) // 2))
    found = evaluate(made_patients(label, subject=subject), [model("true", risk)], SETTINGS)
    assert value(found, "auroc")["how"] == "bootstrap"


# ── Sampled controls ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_weights_recover_the_unsampled_cohort_and_without_them_it_is_another():
    """Two controls for each case out of 6,000 patients, forty times: the mean within four of its standard errors."""
    label, risk = made_risks(6_000, 3)
    risk = expit(0.8 * logit(risk) + 0.3)  # not perfectly calibrated, so that every metric has something to show
    asked = {"absolute": True, "risks": (0.1, 0.3), "specificities": (0.9,)}
    whole = Measures(label, risk, **asked)(np.ones(6_000))
    cases, controls = np.flatnonzero(label), np.flatnonzero(label == 0)
    weighted, plain = [], []
    for seed in range(40):
        drawn = np.random.default_rng(seed).choice(controls, 2 * len(cases), replace=False)
        rows = np.concatenate([cases, drawn])
        weight = np.where(label[rows] == 1, 1.0, len(controls) / len(drawn))
        measures = Measures(label[rows], risk[rows], **asked)
        weighted.append(measures(weight))
        plain.append(measures(np.ones(len(rows))))
    differ = []
    for key, expected in whole.items():
        values = np.array([one[key] for one in weighted])
        # ICI and its kin are means of absolute values, which sampling can only make larger: within a tenth.
        biased = key[0] in ("ici", "e50", "e90", "quantile_calibration_error")
        allowed = 4 * values.std(ddof=1) / np.sqrt(40) + (0.1 * expected if biased else 1e-9)
        assert values.mean() == pytest.approx(expected, abs=allowed), key
        if abs(np.mean([one[key] for one in plain]) - expected) > 2 * allowed:
            differ.append(key[0])
    assert {"brier", "average_precision", "ppv", "npv", "flagged", "net_benefit", "observed_to_expected"} <= {*differ}
    assert "auroc" not in differ and "sensitivity" not in differ


def test_sampled_controls_are_weighed_and_refused_without_weights(two):
    label, risk, _ = two
    sampled = Design("sampled controls", "risk", 365)
    weight = np.where(label == 1, 1.0, 3.0)
    found = evaluate(made_patients(label, sampled, weight=weight), [model("true", risk)], SETTINGS)
    assert value(found, "brier")["value"] == pytest.approx(np.average((label - risk) ** 2, weights=weight))
    assert value(found, "auroc")["how"] == "bootstrap" and found.about["weighted"]
    bare = made_patients(label, replace(sampled, refused=UNWEIGHTED))
    refused = evaluate(bare, [model("true", risk)], SETTINGS)
    assert not {"brier", "ppv", "flagged", "net_benefit", "calibration_slope"} & set(refused.figures["metric"])
    assert {"auroc", "sensitivity", "specificity"} <= set(refused.figures["metric"])
    assert refused.about["said"] == [UNWEIGHTED]


# ── Matched sets ──────────────────────────────────────────────────────────────────────────────────────────────────────


def test_matched_sets_are_resampled_whole_and_have_no_absolute_risk():
    random = np.random.default_rng(4)
    sets, label = np.repeat(np.arange(150), 3), np.tile([1, 0, 0], 150)
    of_set = np.repeat(random.normal(0, 2, 150), 3)
    risk = expit(of_set + random.normal(size=450) + label)
    design = Design("matched sets", "score", None, MATCHED)
    found = evaluate(made_patients(label, design, sets=sets), [model("one", risk)], SETTINGS)
    within = value(found, "concordance_within_sets", name="one")
    assert within["value"] == pytest.approx(within_set_concordance(label, risk, sets)[1].mean())
    assert within["low"] < within["value"] < within["high"]
    # The risk that a whole set has in common says nothing within it, and blurs the AUROC.
    assert within["value"] > value(found, "auroc", name="one")["value"] + 0.05
    assert value(found, "auroc", name="one")["how"] == "bootstrap" and found.about["resampled"] == "matched sets"
    assert not {"brier", "ppv", "net_benefit", "observed_to_expected"} & set(found.figures["metric"])
    assert set(found.curves["curve"]) == {"roc", "sensitivity", "specificity"}
    assert "were matched to cases" in table_text(evaluation_tables(found)[0])


# ── Censored labels ───────────────────────────────────────────────────────────────────────────────────────────────────


def censored_rows(seed, n=4_000):
    """True labels at day 365 and risks, what was seen of them, and the weights of the cohort."""
    random = np.random.default_rng(seed)
    label, risk = made_risks(n, seed)
    event = np.where(label == 1, random.integers(1, 366, n), 10_000)
    # Nobody knows of the event of whom he does not follow; every third leaves within the year.
    left = np.where(random.random(n) < 0.35, random.integers(0, 365, n), 10_000)
    seen, gone = (event <= 365) & (event <= left), (left < 365) & (left < event)
    days = {"event_day": np.where(seen, event, -1), "censored_day": np.where(gone, left, -1)}
    frame = pl.DataFrame({name: pl.Series(of, dtype=pl.Int32) for name, of in days.items()}).with_columns(
        pl.when(pl.all() >= 0).then(pl.all())
    )
    frame = frame.with_columns(death_day=pl.lit(None, pl.Int32), weight=pl.lit(1.0))
    weights = with_censoring_weights(frame, 365)["censoring_weight"].to_numpy()
    return label, risk, np.where(gone, -1, seen).astype(np.int8), weights


def test_censoring_weights_recover_what_everybodys_label_gives():
    asked = {"absolute": True, "risks": (0.2,)}
    differences, naive = {}, []
    for seed in range(30):
        label, risk, seen, weights = censored_rows(seed)
        known = seen >= 0
        truth = Measures(label, risk, **asked)(np.ones(len(label)))
        found = Measures(seen[known], risk[known], **asked)(weights[known])
        plain = Measures(seen[known], risk[known], **asked)(np.ones(known.sum()))
        for key in (("auroc", None), ("brier", None), ("observed_to_expected", None), ("net_benefit", 0.2)):
            differences.setdefault(key, []).append(found[key] - truth[key])
        naive.append(plain["observed_to_expected", None] - truth["observed_to_expected", None])
    for key, off in differences.items():
        assert np.mean(off) == pytest.approx(0, abs=4 * np.std(off, ddof=1) / np.sqrt(30)), key
    # Cases of the last days are rarely seen out: without weights there are too many cases, seen early.
    assert np.mean(naive) > 4 * np.std(naive, ddof=1) / np.sqrt(30)


def test_censored_patients_have_bounds_beside_the_weighted_figures():
    label, risk, seen, weights = censored_rows(0, n=600)
    patients = made_patients(seen, weight=weights)
    found = evaluate(patients, [model("true", risk)], SETTINGS)
    bound, row = value(found, "auroc", kind="bound"), value(found, "auroc")
    truth = auroc_delong(label, risk).auroc
    assert bound["low"] < row["value"] < bound["high"] and bound["low"] < truth < bound["high"]
    assert row["n"] == (seen >= 0).sum() and bound["n"] == 600 and row["how"] == "bootstrap"
    assert found.about["counts"]["censored"] == (seen < 0).sum()
    unpredicted = np.where(seen < 0, np.nan, risk)
    without = evaluate(patients, [model("true", unpredicted)], SETTINGS)
    assert not len(without.figures.filter(kind="bound"))
    assert "no bounds: the censored were not predicted" in without.about["said"]


# ── Refusals ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_what_cannot_be_compared_is_refused(two):
    label, risk, _ = two
    patients = made_patients(label)
    with pytest.raises(ValueError, match="must have a name each: got a, a; name them"):
        evaluate(patients, [model("a", risk), model("a", risk)])
    with pytest.raises(ValueError, match="the reference must be one of the models: got 'b'; use one of a"):
        evaluate(patients, [model("a", risk)], EvaluationSettings(reference="b"))
    with pytest.raises(ValueError, match="needs cases and controls: got 0 and 800 in made"):
        evaluate(made_patients(np.zeros(800)), [model("a", risk)])
    assert EVERYBODY.absolute


def test_scores_that_order_nobody_have_an_auroc_of_one_half_and_no_formula(two):
    found = evaluate(made_patients(two[0]), [model("flat", np.full(800, 0.2)), model("true", two[1])], SETTINGS)
    row = value(found, "auroc", name="flat")
    assert (row["value"], row["how"]) == (0.5, "bootstrap")
    assert value(found, "auroc", kind="difference of models")["how"] == "paired bootstrap"
    assert value(found, "calibration_slope", name="flat")["value"] is None
