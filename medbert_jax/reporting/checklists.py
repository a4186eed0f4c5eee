"""The reporting checklist TRIPOD+AI and PROBAST's signalling questions, answered where the data know the answer."""

from collections.abc import Callable

from medbert_jax.printed_tables import Table
from medbert_jax.reporting.checked_answers import Answers

AUTHOR = "author must write"
"""Marks what no program knows."""
_Answer = Callable[[Answers], str] | None

# Items in short, in the order of Collins et al. 2024, BMJ 385:e078378.
_TRIPOD: tuple[tuple[str, str, _Answer], ...] = (
    ("1", "Title: model, target population, outcome", None),
    ("2", "Abstract", None),
    ("3a", "Healthcare context and rationale", None),
    ("3b", "Target population and intended use", None),
    ("3c", "Known health inequalities", None),
    ("4", "Objectives", lambda of: of.question),
    ("5a", "Sources of data", lambda of: of.source),
    ("5b", "Dates of the data", lambda of: of.dates),
    ("6a", "Setting, number and location of centres", None),
    ("6b", "Eligibility", lambda of: of.eligibility),
    ("6c", "Treatments received", None),
    ("7", "Data preparation and quality checks", lambda of: of.preparation),
    ("8a", "Outcome, horizon, how assessed", lambda of: of.outcome),
    ("8b", "Qualification of outcome assessors, where judged", None),
    ("8c", "Blinding of the assessment", lambda of: of.blinding),
    ("9a", "Choice of predictors", lambda of: of.predictors),
    ("9b", "Definition and timing of predictors", lambda of: of.input),
    ("9c", "Qualification of predictor assessors, where judged", None),
    ("10", "Sample size", lambda of: of.sample_size),
    ("11", "Missing data", lambda of: of.missing),
    ("12a", "How data were used: development, evaluation", lambda of: of.splits),
    ("12b", "Handling of predictors", lambda of: of.handling),
    ("12c", "Model type, building steps, internal validation", lambda of: of.building),
    ("12d", "Heterogeneity between clusters", None),
    ("12e", "Measures of performance", lambda of: of.measures),
    ("12f", "Model updating", lambda of: of.updating),
    ("12g", "How predictions are calculated", lambda of: of.calculated),
    ("13", "Class imbalance", lambda of: of.imbalance),
    ("14", "Fairness", lambda of: of.fairness),
    ("15", "Output of the model and thresholds", lambda of: of.output),
    ("16", "Differences between development and evaluation data", lambda of: of.difference),
    ("17", "Ethical approval", None),
    ("18a", "Funding", None),
    ("18b", "Conflicts of interest", None),
    ("18c", "Protocol", None),
    ("18d", "Registration", None),
    ("18e", "Data sharing", None),
    ("18f", "Code sharing", lambda of: of.code),
    ("19", "Involvement of patients and the public", None),
    ("20a", "Flow of participants", lambda of: of.flow),
    ("20b", "Characteristics", lambda of: of.characteristics),
    ("20c", "Development and evaluation data compared", None),
    ("21", "Participants and events of each analysis", lambda of: of.analysed),
    ("22", "Full model, for use by others", lambda of: of.full_model),
    ("23a", "Performance with intervals, and in subgroups", lambda of: of.performance),
    ("23b", "Heterogeneity in performance", lambda of: of.heterogeneity),
    ("24", "Results of updating", lambda of: of.updating),
    ("25", "Interpretation, fairness included", None),
    ("26", "Limitations", lambda of: of.limitations),
    ("27a", "Poor or missing input at use", None),
    ("27b", "Expertise needed at use", None),
    ("27c", "Next steps", None),
)

# Questions in short, in the order of Wolff et al. 2019, Ann Intern Med 170:51.
_PROBAST: tuple[tuple[str, str, _Answer], ...] = (
    ("1.1", "Appropriate sources of data?", lambda of: of.probast_source),
    ("1.2", "All inclusions and exclusions appropriate?", lambda of: of.probast_inclusion),
    ("2.1", "Predictors defined and assessed alike for all?", lambda of: of.probast_alike),
    ("2.2", "Predictors assessed without knowledge of the outcome?", lambda of: of.probast_blind),
    ("2.3", "All predictors available when the model is to be used?", lambda of: of.probast_available),
    ("3.1", "Outcome determined appropriately?", None),
    ("3.2", "Outcome pre-specified or standard?", lambda of: of.probast_specified),
    ("3.3", "Predictors excluded from the outcome's definition?", lambda of: of.probast_excluded),
    ("3.4", "Outcome defined alike for all?", lambda of: of.probast_outcome_alike),
    ("3.5", "Outcome determined without knowledge of the predictors?", None),
    ("3.6", "Interval between predictors and outcome appropriate?", lambda of: of.probast_interval),
    ("4.1", "Reasonable number of participants with the outcome?", lambda of: of.probast_number),
    ("4.2", "Continuous and categorical predictors handled well?", lambda of: of.probast_handled),
    ("4.3", "All enrolled participants in the analysis?", lambda of: of.probast_all),
    ("4.4", "Missing data handled well?", lambda of: of.probast_missing),
    ("4.5", "No selection of predictors by univariable analysis?", lambda of: of.probast_selection),
    ("4.6", "Censoring, competing risks, sampling accounted for?", lambda of: of.probast_complex),
    ("4.7", "Relevant measures of performance?", lambda of: of.probast_measures),
    ("4.8", "Overfitting and optimism accounted for?", lambda of: of.probast_optimism),
    ("4.9", "Model as reported is the model that was fitted?", lambda of: of.probast_fitted),
)


def tripod(answers: Answers) -> Table:
    """TRIPOD+AI: item, what it asks, what is known."""
    note = f"Items in short, after Collins et al. 2024, BMJ 385:e078378. {AUTHOR.capitalize()}: nothing here knows it."
    return _table("TRIPOD+AI", ("item", "asks for", "here"), _TRIPOD, answers, AUTHOR, note)


def probast(answers: Answers) -> Table:
    """PROBAST: question, what it asks, yes, probably yes, probably no, no or no information, and why."""
    note = "Questions in short, after Wolff et al. 2019, Ann Intern Med 170:51. A person has to judge them all."
    return _table("PROBAST", ("question", "asks", "answer"), _PROBAST, answers, f"No information: {AUTHOR}.", note)


def _table(title: str, columns: tuple[str, ...], items, answers: Answers, unknown: str, note: str) -> Table:
    rows = tuple((number, asks, (answer(answers) if answer else "") or unknown) for number, asks, answer in items)
    return Table(title, columns, rows, "<<<", (note,))
