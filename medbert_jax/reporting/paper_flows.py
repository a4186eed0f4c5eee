"""Counts that the paper prints of its two cohorts: Rasmy et al. 2021, npj Digital Medicine 4:86."""

from medbert_jax.attrition.steps import Attrition, Cell
from medbert_jax.printed_tables import Table

_AFTER = "after "
_FLOWS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "dhf": (
        ("patients with a diabetes code", "3,668,780", f"{_AFTER}no_diabetes"),
        ("cases", "39,727", "cases"),
        ("controls", "632,920", "controls"),
    ),
    "paca": (
        ("patients with a code of pancreatic cancer", "about 45,000", ""),
        ("patients of the cohort", "29,405", "kept"),
        ("cases", "11,486", "cases"),
    ),
}
"""Cohort → what, as the paper counts it, and where it stands in an attrition."""


def paper_flow(cohort: str, attrition: Attrition, *, share: bool = False) -> Table | None:
    """The paper's counts beside those of an attrition; None of cohorts that the paper does not have."""
    if cohort not in _FLOWS:
        return None
    left, remain, ends = attrition.cells(share=share)["patients"]
    rules = [line.rule.rpartition(":")[2] for step in attrition.steps for line in step.lines]
    del left

    def here(where: str) -> str:
        if where.startswith(_AFTER) and where.removeprefix(_AFTER) in rules:
            return _text(remain[rules.index(where.removeprefix(_AFTER)) + 1])
        if where == "kept":
            return _text(remain[-1])
        parts = [cell for (names, _), cell in zip(attrition.groups(), ends, strict=True) if names[1:] == (where,)]
        if not parts:
            return "–"
        numbers = [part for part in parts if isinstance(part, int)]
        return _text(sum(numbers)) if len(numbers) == len(parts) else "hidden"

    return Table(
        title="Beside the paper's counts",
        columns=("", "paper (Cerner)", "here"),
        rows=tuple((what, paper, here(where)) for what, paper, where in _FLOWS[cohort]),
        alignment="<>>",
        notes=("Paper: Rasmy et al. 2021. Another source, so counts differ; their proportions may be compared.",),
    )


def _text(cell: Cell) -> str:
    return f"{cell:,}" if isinstance(cell, int) else cell
