"""All of it as one piece of markdown with its figures: tables, Fig. 4, family, controls, claims, looks and runs."""

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from medbert_jax.disk.whole_files import write_whole
from medbert_jax.printed_tables import Table, to_markdown
from medbert_jax.replication.claims import claim_tables
from medbert_jax.replication.drawn import Figure, figures
from medbert_jax.replication.folds import fold_tables
from medbert_jax.replication.sizes import size_tables
from medbert_jax.replication.study import Study
from medbert_jax.replication.table4 import further_table, table4
from medbert_jax.replication.tests_of_gain import confirmatory_table, control_table
from medbert_jax.replication.variants import gain_table, variant_table

BEGIN, END = "<!-- medbert tables: begin -->", "<!-- medbert tables: end -->"
"""In a document, what is between them is made anew."""
RUNS = "runs.csv"
_SIMULATED = (
    "**Of what is marked as simulated no patient is real, and it says nothing of real ones.** The paper's numbers"
    " beside it are of licensed data, which nobody else has: what can be compared is direction and order, not height."
)
_RUN = ("run_id", "experiment", "cohort", "dataset_hash", "backbone", "head", "train_size", "train_size_name",
        "replicate", "seed", "commit", "checkpoint", "device", "epochs", "stopping_reason", "wall_time_s")  # fmt: skip


def sections(study: Study) -> list[tuple[str, list[Table]]]:
    """Heading → its tables, in the order of the page; headings without a table are left out."""
    judged = [cohort for cohort in study.cohorts if not cohort.is_permuted]
    found: list[tuple[str, list[Table | None]]] = [
        ("The paper's Table 4, and ours", [table4(study)]),
        ("Confirmatory", [confirmatory_table(study), control_table(study)]),
        ("Training sizes (the paper's Fig. 4)", [table for cohort in judged for table in size_tables(study, cohort)]),
        ("Cross-fitted", [*fold_tables(study)]),
        ("The paper's claims", list(claim_tables(study))),
        ("Other experiments", [variant_table(study), gain_table(study)]),
        ("Every row and size (the paper's Supplementary Tables)", [further_table(study, cohort) for cohort in judged]),
        ("Looks and runs", [looks_table(study)]),
    ]
    there = [(heading, [table for table in tables if table is not None]) for heading, tables in found]
    return [(heading, tables) for heading, tables in there if tables]


def looks_table(study: Study) -> Table:
    """How often each test split was looked at, and every run that was started."""
    rows = []
    for cohort in study.cohorts:
        of = study.results.filter(dataset_hash=cohort.filed.patients.dataset_hash)
        experiments = of.group_by("experiment").agg(pl.col("run_id").n_unique()).sort("experiment").rows()
        rows.append(
            (
                cohort.title,
                cohort.filed.patients.dataset_hash[:8],
                f"{cohort.looks:,}",
                f"{cohort.without_auroc:,}",
                ", ".join(f"{name}: {count:,}" for name, count in experiments),
            )
        )
    notes = [
        f"{study.results['run_id'].n_unique():,} runs are filed, all of them in {RUNS}; {study.begun:,} more were begun"
        " and are not. A look is a run that was judged on the test split, whatever came out; without an AUROC are those"
        " whose predictions are not stored, or order nobody. What was run in other folders, or deleted, nobody knows."
    ]
    if study.unfiled:
        notes.append(f"Without their test patients, and so in no table: {', '.join(study.unfiled)}.")
    return Table(
        "Looks at the test splits",
        ("cohort", "dataset", "looks", "without an AUROC", "runs by experiment"),
        tuple(rows),
        "<<>><",
        tuple(notes),
    )


def markdown(study: Study, drawn: Sequence[Figure], folder: str = "") -> str:
    """The page below its title; `folder` is where its figures lie, seen from it."""
    # For who makes it again: benchmarks/check_results.py.
    parts = [f"<!-- experiments: {study.experiment}; draws: {study.draws}; seed: {study.seed} -->"]
    parts += [_SIMULATED] if study.has_simulated else []
    for heading, tables in sections(study):
        parts.append(f"## {heading}")
        if heading.startswith("Training sizes"):
            parts += [f"![{figure.words}]({folder}{figure.file})\n\n{figure.words}." for figure in drawn]
        parts.append(to_markdown(tables).rstrip())
    return "\n\n".join(parts) + "\n"


def write_tables(study: Study, out: Path) -> list[Path]:
    """Write the page, its figures and the list of runs; returns their paths, the page first.

    `out` is a folder, which gets results.md and the rest, or a FILE.md: what stands in it between `BEGIN` and `END` is
    made anew, and the rest goes into a folder beside it that is called after the file.

    Raises ValueError where such a file is there and has not these two lines, once each and in this order.
    """
    drawn = list(figures(study))
    is_file = out.suffix == ".md"
    beside = out.with_suffix("") if is_file else out
    page = out if is_file else out / "results.md"
    text = markdown(study, drawn, f"{beside.name}/" if is_file else "")
    content = between_lines(page, text) if is_file and page.exists() else f"# Results\n\n{BEGIN}\n\n{text}\n{END}\n"
    beside.mkdir(parents=True, exist_ok=True)
    runs = study.results.select(*_RUN).unique("run_id").sort("experiment", "cohort", "backbone", "head", "train_size",
                                                             "replicate", "run_id")  # fmt: skip
    written = {page: content, beside / RUNS: runs.write_csv()}
    written |= {beside / figure.file: figure.draw() for figure in drawn}
    for path, what in written.items():
        write_whole(path, what)
    return list(written)


def between_lines(page: Path, text: str) -> str:
    """The content of a document with `text` between its two lines."""
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(f"{BEGIN}\n")
    _, end, after = rest.partition(END)
    if not (begin and end) or content.count(BEGIN) != 1 or content.count(END) != 1:
        raise ValueError(
            f"a document that is made anew must say where, by the lines {BEGIN} and {END}: got {page} without the two,"
            " once each and in this order; write them into it, or name a folder"
        )
    return f"{before}{begin}\n{text}\n{end}{after}"


def generated_part(page: Path) -> str:
    """What stands between the two lines of a document; empty where they are not there."""
    _, _, rest = page.read_text(encoding="utf-8").partition(f"{BEGIN}\n")
    return rest.partition(END)[0]
