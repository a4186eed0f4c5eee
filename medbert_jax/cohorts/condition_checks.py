"""Faults within the condition of a rule: keys that its measure does not know, needs, or needs just one of."""

from typing import TYPE_CHECKING

from medbert_jax.cohorts.conditions import COUNTS, Condition

if TYPE_CHECKING:
    from medbert_jax.cohorts.spec import CohortSpec

_COMPARISONS = ("at_least", "fewer_than")
_FILTERS = (
    "with_codes",
    "since_codes",
    "with_drugs",
    "with_results",
    "with_disposition",
    "with_type",
    "with_wrong_times",
)
# What a measure needs, and what it may have beside that.
_NEEDS = {
    "medications": ("with_drugs",),
    "measurements": ("with_results",),
    "procedures": ("with_codes",),
    "days_between": ("since_codes", "with_codes"),
    "age_at_first": ("with_codes",),
}
_MAY = {
    "visits": ("with_codes", "with_disposition", "with_type", "with_wrong_times"),
    "days_to_index": ("with_codes", "with_disposition", "with_type"),
}
_WINDOWLESS = ("index_visits", "days_to_index", "days_between", "days_of_follow_up", "age_at_first", "age_at_index")
_EVENT_WINDOWS = ("whole_record", "before_index", "through_index")
# Whether a condition holds at a date that is not drawn yet: it may look at these windows alone.
_WINDOWS_OF_A_DATE = ("whole_record", "first_visit", "before_first_visit", "before_index", "by_index_date")


def condition_faults(when: Condition, key: str, spec: "CohortSpec") -> list[str]:
    """Every fault of a condition, and of those that it puts together."""
    for name in ("any_of", "none_of"):
        parts = getattr(when, name)
        if parts is None:
            continue
        other = [field for field in (*_FILTERS, "window", *_COMPARISONS, "unknown") if getattr(when, field) is not None]
        other += ["none_of"] if name == "any_of" and when.none_of is not None else []
        faults = [f"{key}: {name} stands alone; leave out {', '.join(other)}"] if other else []
        if not parts:
            faults.append(f"{key}.{name}: empty; name at least one condition")
        for number, part in enumerate(parts, start=1):
            if part is not None:
                faults += condition_faults(part, f"{key}.{name}[{number}]", spec)
        if spec.matching is not None and len({turns_true(leaf) for leaf in when.leaves()} - {None}) > 1:
            faults.append(
                f"{key}.{name}: in a matched cohort all parts must become true with time (at_least), or all false"
                " (fewer_than)"
            )
        return faults
    if when.measure is None:
        return []
    return _comparison_faults(when, key) + _window_faults(when, key, spec) + _filter_faults(when, key)


def turns_true(leaf: Condition) -> bool | None:
    """Whether a condition, with a later index, may become true (True) or false (False); None: neither."""
    if leaf.window in ("before_index", "by_index_date") or leaf.measure == "days_to_index":
        return leaf.at_least is not None
    return None


def _comparison_faults(when: Condition, key: str) -> list[str]:
    faults = []
    comparisons = [name for name in _COMPARISONS if getattr(when, name) is not None]
    if when.unknown is not None:
        if when.measure in COUNTS:
            faults.append(f"{key}.unknown: measure {when.measure} counts, and a count is known; use fewer_than: 1")
        if when.unknown is False:
            faults.append(f"{key}.unknown: write true or leave the key out")
        comparisons.append("unknown")
    if len(comparisons) != 1:
        faults.append(f"{key}: needs exactly one of at_least, fewer_than")
    for name in _COMPARISONS:
        number = getattr(when, name)
        if number is not None and number < 1:
            faults.append(f"{key}.{name}: must be 1 or more; got {number}")
    return faults


def _window_faults(when: Condition, key: str, spec: "CohortSpec") -> list[str]:
    measure, window = when.measure, when.window
    if measure in _WINDOWLESS:
        looks = "looks at the index visit" if measure == "index_visits" else "always looks at the whole record"
        return [f"{key}.window: measure {measure} {looks}; leave the key out"] if window is not None else []
    if window is None:
        return [f"{key}.window: missing; measure {measure} counts within a window"]
    faults = []
    allowed = (*_EVENT_WINDOWS, *(("before_first_visit",) if measure == "deaths" else ()))
    if measure != "visits" and window not in allowed:
        faults.append(f"{key}.window: measure {measure} counts days, in {', '.join(allowed)}; got {window}")
    elif measure == "visits" and window == "before_first_visit":
        faults.append(f"{key}.window: no visit comes before the first one; got {window}")
    if spec.matching is not None and window not in _WINDOWS_OF_A_DATE:
        faults.append(
            f"{key}.window: the index of a matched cohort is a date: use {', '.join(_WINDOWS_OF_A_DATE)}; got {window}"
        )
    return faults


def _filter_faults(when: Condition, key: str) -> list[str]:
    needs = _NEEDS.get(when.measure, ())
    faults = [
        f"{key}.{name}: missing; measure {when.measure} needs it" for name in needs if getattr(when, name) is None
    ]
    for name in _FILTERS:
        value = getattr(when, name)
        if value is not None and name not in (*needs, *_MAY.get(when.measure, ())):
            faults.append(f"{key}.{name}: measure {when.measure} does not look at it; leave the key out")
        if value == ():
            faults.append(f"{key}.{name}: empty; name at least one or leave the key out")
    if when.with_wrong_times is False:
        faults.append(f"{key}.with_wrong_times: write true or leave the key out")
    return faults
