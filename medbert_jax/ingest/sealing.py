"""What all shards of a source say together: told to the user, and written beside the tables."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import polars as pl

from medbert_jax.attrition.ledger import Ledger
from medbert_jax.disk.whole_files import write_json
from medbert_jax.ehr.codes import SOURCE
from medbert_jax.ehr.schema import SCHEMAS
from medbert_jax.ehr.shard_files import seal
from medbert_jax.ehr.shared_visits import UNIQUE_VISITS, count_shared_visits
from medbert_jax.ingest.building import Built
from medbert_jax.ingest.columns import Judged, assumed, read_as_empty, told
from medbert_jax.ingest.dates import FORMS, told_shapes
from medbert_jax.ingest.job import Job
from medbert_jax.ingest.losses import find_losses, render_events
from medbert_jax.ingest.reader import Reader
from medbert_jax.ingest.unknown_codes import write_unknown_codes

_NO_ORDER = (
    "The source says neither priority nor present on admission nor captured at billing: the codes of a visit have no "
    "order of their own and are put in that of their names."
)


def seal_all(
    job: Job,
    built: list[Built],
    judged: Judged,
    reader: Reader,
    advice: tuple[str, ...],
    announce: Callable[[str], None],
) -> Ledger:
    """Write what is said of all shards together; returns their ledger."""
    new = job.new
    for line in (*told(judged), *advice):
        announce(line)
    unreadable = sum((one.unreadable for one in built), Counter())
    if unreadable:
        said = ", ".join(f"{column} {count:,}" for column, count in sorted(unreadable.items()))
        announce(f"unknown now, because nothing could be made of what is written there: {said}")
    of_dates: dict[str, Counter[str]] = {}
    for (column, shape), cells in sorted(sum((one.shapes for one in built), Counter()).items()):
        of_dates.setdefault(column, Counter())[shape] = cells
    for column, found in of_dates.items():
        announce(f"no dates in {column}: {told_shapes(found)}; read are {FORMS}, others by --options.date-format")
    unknown_codes = [one.unknown_codes for one in built if one.unknown_codes is not None]
    if unknown_codes and (line := write_unknown_codes(unknown_codes, new)):
        announce(line)
    ledger = functools.reduce(Ledger.merge, (one.ledger for one in built))
    _refuse_empty(ledger, sum((Counter(one.record.rows) for one in built), Counter()), unreadable)
    events = functools.reduce(Ledger.merge, (one.events for one in built))
    systems = _by_table(sum((one.systems for one in built), Counter()))
    shared = None
    if built[0].source.format in UNIQUE_VISITS:
        files = [file for one in built for file in one.record.files if file.startswith("visits/")]
        if shared := sum(count_shared_visits(new, files, once=True).values()):
            announce(f"[shared_visit_id] {shared:,} visits have an id that another patient's visit has too: they stay")
    rows, lost = (sum((getattr(one, name) for one in built), Counter()) for name in ("rows", "lost"))
    if events.came.codes:
        announce(render_events(events.title, rows, lost))
    for name, whole_one, parts in (
        ("ledger", ledger, [one.ledger for one in built]),
        ("events_ledger", events, [one.events for one in built]),
    ):
        record = {**whole_one.to_dict(), "by_shard": [part.to_dict() for part in parts]}
        if name == "ledger":
            record["unreadable_cells"] = dict(sorted(unreadable.items()))
            record["unreadable_dates"] = {column: dict(found) for column, found in of_dates.items()}
            record["read_as_empty"] = read_as_empty(judged)
            record["code_systems"] = systems
            if shared is not None:
                record["shared_visit_ids"] = shared
            record["losses"] = find_losses(rows, lost, reader.remedies)
        write_json(new / f"{name}.json", record)
    # A shard without patients has nothing to say of the source.
    telling = [one for one in built if one.record.rows["patients"]] or built
    said = tuple(dict.fromkeys(line for one in telling for line in one.source.assumptions)) + advice
    order = ("priority", "present_on_admission", "captured_at_billing")
    if not any(one.record.known[f"diagnoses.{column}"] for one in built for column in order):
        said += (_NO_ORDER,)
    if counted := sum((one.told for one in built), Counter()):
        said += (
            f"Counted in the source: {', '.join(f'{what} {count:,}' for what, count in sorted(counted.items()))}.",
        )
    said += tuple(assumed(job.options))
    splits = pl.concat([one.splits for one in built])
    precision = " or ".join(sorted({one.source.age_precision for one in telling}))
    described = replace(telling[0].source, assumptions=said, age_precision=precision)
    titles = pl.concat([one.titles for one in built]).sort(pl.all()).unique(["code_system", "code"], keep="first")
    seal(new, described, [one.record for one in built], splits, titles)
    for table, rows in systems.items():
        shares = ", ".join(f"{system} {count / sum(rows.values()):.1%}" for system, count in rows.items())
        announce(f"{table}: {shares}{' (SOURCE left: of no named system)' * (SOURCE in rows)}")
    return ledger


def _by_table(systems: Counter[tuple[str, str]]) -> dict[str, dict[str, int]]:
    """Table → code system → rows, the most frequent first."""
    tables: dict[str, dict[str, int]] = {}
    for (table, system), rows in sorted(
        systems.items(), key=lambda one: (list(SCHEMAS).index(one[0][0]), -one[1], one[0])
    ):
        tables.setdefault(table, {})[system] = rows
    return tables


def _refuse_empty(ledger: Ledger, rows: Counter[str], unreadable: Counter[str]) -> None:
    """Raise ValueError, with all that is known of why, where a table that must have rows has none."""
    lines = []
    for table, level in (("patients", "patients"), ("visits", "visits"), ("diagnoses", "codes")):
        if not rows[table]:
            by_rule = [(line, getattr(line.left, level)) for line in ledger.lines]
            left = ", ".join(f"{line.rule} {count:,} ({line.text})" for line, count in by_rule if count)
            came = f"all {getattr(ledger.came, level):,} rows left: {left}" if left else "the source has no such rows"
            lines.append(f"{table}: [empty_table] {came}")
    if lines and unreadable:
        cells = ", ".join(f"{column} {count:,}" for column, count in sorted(unreadable.items()))
        lines.append(f"cells of which nothing could be made: {cells}")
    if lines:
        raise ValueError(
            "EHR tables must have rows, and nothing was written: got none in some:\n  - "
            + "\n  - ".join(lines)
            + "\nmend these in the source, then ingest again"
        )
