"""`medbert describe`: descriptive tables and example timelines of datasets, on the terminal and as files."""

import functools
from collections.abc import Sequence
from pathlib import Path

from medbert_jax.description.descriptives import Description, describe_datasets
from medbert_jax.description.figure_tables import FigureTable, figures_to_csv, figures_to_json
from medbert_jax.description.table2 import characteristics, table2
from medbert_jax.description.timeline_page import timeline_page
from medbert_jax.description.timelines import chart_text, example_charts
from medbert_jax.disk.whole_files import write_whole
from medbert_jax.printed_tables import print_tables, to_markdown

TIMELINES = "timelines.html"
_OF_SINGLE_PATIENTS = (TIMELINES, "review.html", "review_key.csv", "cohort.parquet")


def describe(
    datasets: Sequence[Path],
    *,
    out: Path | None = None,
    paper: Sequence[str] = (),
    share: bool = False,
    max_length: int = 512,
    seed: int = 0,
    cache_dir: Path | None = None,
) -> None:
    """Print Table 2, Table 3 and five example timelines per dataset; write them into the folder `out`.

    With `share` what rests on fewer than 11 patients is hidden, and there are no timelines, which are records of single
    patients. `cache_dir` as in `open_token_store`. Raises ValueError for no dataset, and where `share` would write
    beside records of single patients.
    """
    if not datasets:
        raise ValueError("there must be a dataset to describe: got none; name one or more of their directories")
    if share and out and (found := [name for name in _OF_SINGLE_PATIENTS if (out / name).exists()]):
        raise ValueError(
            f"a folder to be shared must hold no records of single patients: got {out} with {', '.join(found)} in it;"
            " name another folder"
        )
    about = describe_datasets(datasets, max_length=max_length, cache_dir=cache_dir)
    tables = {"table2": [table2(about, paper=paper, share=share)], "table3": characteristics(about, share=share)}
    print_tables([table.printed for several in tables.values() for table in several])
    if not share:
        chart = functools.partial(example_charts, seed=seed, cache_dir=cache_dir)
        examples = [(one.name, chart(path, one)) for path, one in zip(datasets, about, strict=True)]
        for name, charts in examples:
            print(f"Example timelines of {name} (+ a code that is new, = one that an earlier visit has)")
            print(*map(chart_text, charts), sep="\n")
    if out:
        out.mkdir(parents=True, exist_ok=True)
        for name in tables:
            write_figures(tables[name], out / name, about, share=share)
        if not share:
            write_whole(out / TIMELINES, timeline_page(examples))
        print(f"tables{'' if share else f' and {TIMELINES}'} in {out}")


def show_table2(dataset: Path, cache_dir: Path | None = None) -> None:
    """Print Table 2 of one dataset."""
    print_tables([table2(describe_datasets([dataset], cache_dir=cache_dir)).printed])


def write_figures(tables: Sequence[FigureTable], path: Path, about: Sequence[Description], *, share: bool) -> None:
    """Write the tables as PATH.md, PATH.csv and PATH.json, the last with the hashes of the datasets."""
    datasets = {
        one.name: {"dataset_hash": one.metadata["dataset_hash"], "source": one.metadata.get("source", {}).get("format")}
        for one in about
    }
    texts = {
        "md": to_markdown([table.printed for table in tables]),
        "csv": figures_to_csv(tables),
        "json": figures_to_json(tables, {"shareable": share, "datasets": datasets}),
    }
    for ending, text in texts.items():
        write_whole(path.with_suffix(f".{ending}"), text)
