"""What a spec by itself leaves open, whatever the tables: said, since nothing of it is wrong in every cohort."""

from medbert_jax.cohorts.spans import DaysOfFollowUp
from medbert_jax.cohorts.spec import CohortSpec


def own_limits(spec: CohortSpec) -> list[str]:
    """No rules, rules that look after the index, too short a follow-up for the outcome, deaths that do not compete."""
    said = []
    if not spec.rules:
        said.append("rules: none; everybody who has an index, a label and an input is in")
    if spec.looks_after_index:
        said.append(spec.said_of_looking())
    if not spec.outcome.is_ahead:
        return said
    at_risk = spec.outcome.known_after_days
    asked = [
        rule.when.fewer_than
        for rule in spec.rules
        if rule.action == "leave" and isinstance(rule.when, DaysOfFollowUp) and rule.when.fewer_than is not None
    ]
    if max(asked, default=0) < at_risk:
        said.append(
            f"the outcome is looked for up to {at_risk} days ahead, and"
            f" {f'{max(asked)} days of follow-up are' if asked else 'no follow-up is'} asked for: whom the source"
            f" leaves earlier leaves under source_ends; see {{measure: days_of_follow_up, fewer_than: {at_risk}}}"
        )
    return said
