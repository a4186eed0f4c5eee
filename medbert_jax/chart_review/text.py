"""What every rule of a cohort says of one patient, and why, for a terminal."""

from pathlib import Path

from medbert_jax.chart_review.charts import ReviewedChart
from medbert_jax.chart_review.chosen_patients import chart_of
from medbert_jax.chart_review.rule_words import asked, entry_words, joined, later, when
from medbert_jax.cohorts.known_names import refuse_unknown_names
from medbert_jax.cohorts.loading import SPECS_DIRECTORY, changed_spec, load_spec
from medbert_jax.cohorts.spec import CohortSpec
from medbert_jax.data.metadata import read_metadata
from medbert_jax.ehr.split_rule import find_split

NO_SPLITS = (
    "controls are drawn here from the whole shard: those of a dataset are of their case's split, which"
    " --pretraining-dataset says"
)
_SHOWN = 6
"""Pieces of evidence of one condition."""


def explain_patient(
    ehr_directory: Path,
    cohort: str,
    patient_id: str,
    *,
    gap_days: int | None = None,
    pretraining_dataset: Path | None = None,
) -> str:
    """Rule by rule what the cohort says of the patient; only his shard is read.

    `gap_days` is in place of the spec's. The sets of a matched cohort are drawn within the splits of
    `pretraining_dataset`; without it this says that they are not. Raises ValueError for a folder of labels, for names
    that nobody knows, and as `chart_of`, `load_spec`.
    """
    if Path(cohort).is_dir() and not (SPECS_DIRECTORY / f"{cohort}.yaml").is_file():
        raise ValueError(f"rules are what says why: got the folder {cohort}, which holds no rules; give a cohort spec")
    spec = changed_spec(load_spec(cohort), gap_days=gap_days)
    refuse_unknown_names(spec, Path(ehr_directory))
    later = "not asked here: who leaves after the rules, for wrong times, few codes or a split by time; see ledger.json"
    split = None
    if pretraining_dataset is not None:
        said = read_metadata(pretraining_dataset)["split"]
        split = find_split(Path(ehr_directory), said["key"], said.get("ratios"))
    elif spec.matching is not None:
        later = f"{later}\n{NO_SPLITS}"
    return f"{chart_text(chart_of(Path(ehr_directory), spec, patient_id, split=split), spec)}\n{later}"


def chart_text(chart: ReviewedChart, spec: CohortSpec) -> str:
    """The chart's rules in lines of text."""
    lines = [
        f"{spec.name}: {chart.outcome}",
        *([f"rests on: {chart.label_words}"] if chart.label_words else []),
        *(
            f"        {when(one):>12}  {'  '.join(filter(None, entry_words(one, chart)))}"
            for one in chart.label_evidence
        ),
        chart.person,
        f"days count from the {'index' if chart.from_index else 'first encounter'}",
    ]
    lines += [spec.said_of_looking()] if spec.looks_after_index else []
    for said in chart.rules:
        rule = said.rule
        mark = "  ← leaves here" if chart.group == rule.id else ""
        among = f", {rule.among} alone" if rule.among else ""
        lines.append(
            f"{'yes' if said.says else 'no ':4}{rule.id}: {rule.description} [{rule.tag}, {rule.action}{among}]{mark}"
        )
        lines += [f"      {joined(said)}"] if joined(said) else []
        for part in said.parts:
            lines.append(f"      {asked(part, spec, skips=rule.action == 'skip_visit')}")
            for one in part.evidence[:_SHOWN]:
                words = "  ".join(filter(None, (*entry_words(one, chart), later(one))))
                lines.append(f"        {when(one):>12}  {words}")
            if len(part.evidence) > _SHOWN:
                lines.append(f"        {'':>12}  … {len(part.evidence) - _SHOWN} more")
    for id, text, applies in chart.own_lines:
        lines.append(f"{'yes' if applies else 'no ':4}{id}: {text}{'  ← leaves here' if chart.group == id else ''}")
    return "\n".join(lines)
