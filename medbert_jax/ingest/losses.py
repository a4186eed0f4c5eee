"""Rows that nobody meant to leave: what was lost of every table, and where it is so much that it must be said aloud."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from medbert_jax.disk.stored_json import read_object
from medbert_jax.ehr.schema import EVENT_TABLES
from medbert_jax.printed_tables import Table, table_text

LARGEST_LOSS = 0.05
"""Share of the rows of a table that may leave for broken links and unreadable cells without an alarm."""
BROKEN = (
    "null_patient_id",
    "unlisted_patient",
    "null_visit_id",
    "no_admission",
    "implausible_time",
    "unlinked_code",
    "missing_code",
    "unnamed_system",
    "unreadable_code",
)
"""Rules of broken links and unreadable cells; the others leave rows out by design."""


def find_losses(
    rows: Mapping[str, int], lost: Mapping[tuple[str, str], int], remedies: Mapping[str, str]
) -> list[dict]:
    """The tables of which more than `LARGEST_LOSS` left under `BROKEN` rules: table, rule, rows, of, remedy.

    `rule` is the one that took most, `rows` what left under all of them; JSON-ready, the largest share first.
    """
    found = []
    for table, of in rows.items():
        by_rule = Counter({rule: lost[table, rule] for rule in BROKEN if lost.get((table, rule))})
        if by_rule.total() > LARGEST_LOSS * of:
            worst = by_rule.most_common(1)[0][0]
            cure = remedies.get(worst, "mend these rows in the source")
            found.append({"table": table, "rule": worst, "rows": by_rule.total(), "of": of, "remedy": cure})
    return sorted(found, key=lambda one: (-one["rows"] / one["of"], one["table"]))


def read_losses(directory) -> str:
    """What `medbert ingest` says of the losses of these EHR tables, in one sentence; empty where there are none."""
    losses = read_object(Path(directory) / "ledger.json").get("losses", [])
    said = [
        f"{one['rows']:,} of {one['of']:,} rows of {one['table']} ({one['rows'] / one['of']:.1%}) left, most under"
        f" {one['rule']} ({one['remedy']})"
        for one in losses
    ]
    return (
        f"at most {LARGEST_LOSS:.0%} of a table may leave for broken links and unreadable cells: got"
        f" {'; '.join(said)}; mend the source, or give --allow-loss to go on with what is left"
        if said
        else ""
    )


def render_events(title: str, rows: Counter[str], lost: Counter[tuple[str, str]]) -> str:
    """A text table of medications, measurements and procedures: what came, left under each rule, and was kept."""
    tables = [name for name in EVENT_TABLES if name in rows]
    rules = [rule for rule in dict.fromkeys(rule for _, rule in lost) if any(lost[name, rule] for name in tables)]
    left = {name: sum(lost[name, rule] for rule in rules) for name in tables}
    lines = [
        ("in", *(f"{rows[name]:,}" for name in tables)),
        *((rule, *(f"{'−' * (lost[name, rule] > 0)}{lost[name, rule]:,}" for name in tables)) for rule in rules),
        ("kept", *(f"{rows[name] - left[name]:,}" for name in tables)),
    ]
    return table_text(Table(title, ("", *tables), tuple(lines), "<" + ">" * len(tables)))
