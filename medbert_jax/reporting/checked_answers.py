"""What is known of a study for its checklists, in a sentence each; empty: nobody here knows."""

from dataclasses import dataclass

from medbert_jax.evaluation.stored_evaluation import Evaluation
from medbert_jax.reporting.cohort_facts import CohortFacts
from medbert_jax.reporting.question import question, split_words
from medbert_jax.reporting.reported_cohort import ReportedCohort

EVENTS_FOR_VALIDATION = 100
"""Cases, and controls, that a validation should have: Collins, Ogundimu and Altman 2016."""


@dataclass(frozen=True)
class Answers:
    """Of one cohort, as it may be shown: the evaluation may be one for sharing."""

    cohort: ReportedCohort
    evaluation: Evaluation | None
    facts: CohortFacts

    # ── TRIPOD+AI ─────────────────────────────────────────────────────────────────────────────────────────────────────

    question = property(lambda self: question(self.cohort))
    eligibility = property(lambda self: self._spec(lambda spec: f"{spec.title}. {len(spec.rules)} rules, see the flow"))
    outcome = property(lambda self: self._spec(lambda spec: spec.outcome.description))
    input = property(lambda self: self._spec(lambda spec: spec.input.description))
    splits = property(lambda self: split_words(self.cohort))
    code = "medbert_jax; version and commit stand below"
    flow = property(lambda self: "see the flow" if self.cohort.attrition else "")
    characteristics = property(lambda self: "see Table 2" if self.cohort.description else "")
    predictors = "every diagnosis code of the vocabulary, none chosen by hand"
    handling = "codes as learned embeddings, visits in their order; baselines: presence of each code, ten-year age band"
    imbalance = "none handled: cases are as frequent as the cohort has them"
    blinding = "outcome and input are computed from the records by fixed rules, nobody judges them"
    output = "a probability; net benefit and thresholds stand below, none is recommended"
    calculated = (
        "the fine-tuned model gives a probability; those of test patients lie beside the results, in the MEDS schema"
    )
    updating = "none was done"
    full_model = "the fine-tuned checkpoint, where the run kept one, with vocabulary and configuration"
    missing = "nothing is imputed: an absent code is not recorded, which is not the same as not there"

    @property
    def source(self) -> str:
        """Format of the source, and what was assumed of it."""
        source = (self.cohort.metadata or {}).get("source", {})
        return f"{source['format']}; author must name it" if source.get("format") else ""

    @property
    def dates(self) -> str:
        """The last day, where the tables know it."""
        source = (self.cohort.metadata or {}).get("source", {})
        if source.get("has_dates") is False:
            return "the source has no dates"
        return f"until {source['last_day']}; author must write the first" if source.get("last_day") else ""

    @property
    def preparation(self) -> str:
        """What the serialization left out."""
        return "`medbert validate` and the ledger, see the flow" if self.cohort.attrition else ""

    @property
    def sample_size(self) -> str:
        """Training patients and test cases; not chosen."""
        size = self.cohort.of_size["train_size"].drop_nulls().unique().sort().to_list()
        trained = f"{size[-1]:,}" if size else "all"
        return f"{trained} training patients; {self.analysed or 'test patients hidden'}; all that the source has"

    @property
    def analysed(self) -> str:
        """Patients and cases of the test split."""
        counts = self.evaluation.about["counts"] if self.evaluation else {}
        if not counts:
            return ""
        if self.evaluation is not None and self.evaluation.is_clustered:
            told = f"{counts['rows']:,} predictions of {counts['subjects']:,} patients tested"
            return f"{told}, {counts['cases']:,} of them with the outcome"
        return f"{counts['cases']:,} cases and {counts['controls']:,} controls tested"

    @property
    def building(self) -> str:
        """Models, early stopping, and how one of them was chosen."""
        return (
            f"{len(self.cohort.models)} models, see the tables; stopped early on validation patients; the page is about"
            f" {self.cohort.model}, chosen on validation patients"
        )

    @property
    def measures(self) -> str:
        """Those of the evaluation."""
        if self.evaluation is None:
            return ""
        absolute = "" if self.evaluation.about["design"]["refused"] else ", Brier, calibration, net benefit"
        return f"AUROC, precision and recall{absolute}; intervals by patients"

    @property
    def fairness(self) -> str:
        """Subgroups; what is fair is not for a program to say."""
        return "AUROC by sex, age, race and more, below; author must discuss" if self.evaluation is not None else ""

    @property
    def difference(self) -> str:
        """Between training and test patients."""
        spec = self.cohort.spec
        if spec is not None and spec.split is not None:
            return f"test patients are predicted on {spec.split.test_from} or later"
        return "none but chance: test patients are a random part of the same source"

    @property
    def performance(self) -> str:
        """Where it stands."""
        return "headline, tables and groups below, each with its interval" if self.evaluation is not None else ""

    @property
    def heterogeneity(self) -> str:
        """One source has none between sources."""
        return "by group alone; one source, so nothing between sites"

    @property
    def limitations(self) -> str:
        """The warnings; and more that the author knows."""
        return "the warnings above; author must add others"

    # ── PROBAST ───────────────────────────────────────────────────────────────────────────────────────────────────────

    probast_blind = "Probably yes: codes are recorded in care, before the prediction."
    probast_excluded = property(lambda self: self._codes_seen())
    probast_specified = "Probably yes: code lists of the spec, written before the evaluation."
    probast_handled = "Probably yes: codes are not cut into groups; age stands in ten-year bands in baselines alone."
    probast_missing = "Probably no: absent codes count as absent diagnoses."
    probast_selection = "Yes: nothing is selected by univariable analysis."
    probast_fitted = "Yes: the checkpoint that was tested is the one that was fitted."

    @property
    def probast_source(self) -> str:
        """Whether the sampling keeps the source's shares."""
        sampling = self.evaluation.about["design"]["sampling"] if self.evaluation else ""
        simulated = (self.cohort.metadata or {}).get("source", {}).get("format") == "simulated"
        if simulated:
            return "No: simulated patients."
        kinds = {
            "everybody": "Probably yes: a cohort out of routine records.",
            "sampled controls": "Probably yes: nested case-control, with weights where they are known.",
            "matched sets": "Probably yes: nested case-control, matched; no absolute risks.",
        }
        return kinds.get(sampling, "")

    @property
    def probast_inclusion(self) -> str:
        """Rules that look after the index are not appropriate."""
        spec = self.cohort.spec
        if spec is None:
            return ""
        if spec.looks_after_index is not None:
            return f"No: {spec.looks_after_index} are judged by what comes after the index."
        flawed = "Probably no: controls are followed to their last encounter."
        return flawed if spec.index.is_last_visit else "Probably yes: by what was known at the index."

    @property
    def probast_alike(self) -> str:
        """The same window for cases and controls."""
        if self.cohort.spec is None:
            return ""
        unlike = self.cohort.spec.outcome.by_case and self.cohort.spec.matching is None
        no, yes = (
            "Probably no: cases and controls have indexes of different kinds.",
            "Yes: the same window for everybody.",
        )
        return no if unlike else yes

    @property
    def probast_available(self) -> str:
        """Whether the prediction time exists without the outcome."""
        if self.evaluation is None:
            return ""
        risk = self.evaluation.about["design"]["estimand"] == "risk"
        return "Probably yes: the index exists without the outcome." if risk else (
            "No: the index is known only once the outcome is." )  # fmt: skip

    @property
    def probast_outcome_alike(self) -> str:
        """One rule for all?"""
        return self._spec(lambda spec: "Probably no: cases alone need more than the code." if spec.looks_after_index in
                          ("cases", "both") else "Yes: one rule for everybody.")  # fmt: skip

    @property
    def probast_interval(self) -> str:
        """A horizon, or none."""
        horizon = self.evaluation.about["design"]["horizon_days"] if self.evaluation else None
        return f"Probably yes: within {horizon} days." if horizon is not None else (
            "Probably no: the spec has no horizon." if self.cohort.spec is not None else "")  # fmt: skip

    @property
    def probast_number(self) -> str:
        """At least 100 cases and controls for a validation."""
        counts = self.evaluation.about["counts"] if self.evaluation else {}
        if not counts:
            return ""
        enough = min(counts["cases"], counts["controls"]) >= EVENTS_FOR_VALIDATION
        asked = f"{EVENTS_FOR_VALIDATION} cases and controls tested are asked for"
        if self.evaluation is not None and self.evaluation.is_clustered:
            return (
                f"author must judge: {asked}; there are {counts['rows']:,} predictions of {counts['subjects']:,}"
                " patients, who may have several."
            )
        return (
            f"{'Probably yes' if enough else 'No'}: {asked}, there are {counts['cases']:,} and {counts['controls']:,}."
        )

    @property
    def probast_all(self) -> str:
        """The censored."""
        counts = self.evaluation.about["counts"] if self.evaluation else {}
        if not counts:
            return ""
        if counts["censored"]:
            return f"Probably yes: {counts['censored']:,} censored count through weights."
        return "Yes: all test patients."

    @property
    def probast_complex(self) -> str:
        """Censoring, deaths, sampling."""
        if self.evaluation is None:
            return ""
        if self.evaluation.about["design"]["refused"]:
            return "Probably yes: what the sampling does not allow is refused."
        if self.facts.competing_deaths:
            return "Probably no: competing deaths count as without the outcome."
        return "Probably yes: weights of sampling and censoring, where there are any."

    @property
    def probast_measures(self) -> str:
        """Discrimination and calibration."""
        if self.evaluation is None:
            return ""
        refused = self.evaluation.about["design"]["refused"]
        return "Probably no: calibration cannot be judged in this design." if refused else (
            "Yes: discrimination, calibration and net benefit." )  # fmt: skip

    @property
    def probast_optimism(self) -> str:
        """Looks at the test split."""
        looks = self.cohort.looks
        times = f"{looks:,} time{'s' * (looks > 1)}, once by each run"
        return f"Probably yes: test patients were kept apart, and looked at {times}."

    def _codes_seen(self) -> str:
        if self.facts.with_outcome_codes is None:
            return ""
        seen = "Probably no: the input of some has codes of the outcome."
        return seen if self.facts.with_outcome_codes else "Yes: no code of the outcome is in the input."

    def _spec(self, say) -> str:
        return say(self.cohort.spec) if self.cohort.spec is not None else ""
