"""Reruns: runs of one model, training size and replicate that differ in their configuration, told apart by it."""

from collections.abc import Mapping

import polars as pl

from medbert_jax.disk.stored_json import parse_object

VARIANT = "variant"
CELL = ("experiment", "cohort", "dataset_hash", "backbone", "head")
_EACH = ("train_size", "replicate")
"""What differs between the runs of a model that is run once."""
_LONGEST = 24


def with_variants(results: pl.DataFrame) -> pl.DataFrame:
    """The rows with `variant`: empty, or what is other in the configuration of each run of a model that was run again.

    A model was run again where one training size and replicate of it has several runs. What differs is then named for
    all of its runs, as "max_epochs=5"; where nothing does, each is called after its id.
    """
    runs = results.unique("run_id", maintain_order=True).sort("run_id")
    of_run: dict[str, str] = {}
    for (*_,), of_cell in runs.group_by(*CELL, maintain_order=True):
        again = of_cell.select("train_size_name", "replicate").is_duplicated().any()
        names = _differences(of_cell) if again else dict.fromkeys(of_cell["run_id"], "")
        of_run |= names
    variant = pl.col("run_id").replace_strict(of_run, return_dtype=pl.String) if of_run else pl.lit("")
    return results.with_columns(variant.alias(VARIANT))


def _differences(runs: pl.DataFrame) -> dict[str, str]:
    """Run → "field=value, …" of the fields that differ among the runs."""
    flat = {run: dict(_fields(parse_object(text))) for run, text in runs.select("run_id", "configuration").iter_rows()}
    names = sorted({name for fields in flat.values() for name in fields})
    other = [name for name in names if len({str(fields.get(name)) for fields in flat.values()}) > 1]
    said = {run: ", ".join(f"{name}={_short(fields.get(name))}" for name in other) for run, fields in flat.items()}
    keys = runs.select("run_id", "train_size_name", "replicate").with_columns(
        said=pl.col("run_id").replace_strict(said, return_dtype=pl.String)
    )
    repeated = keys.filter(keys.select("said", "train_size_name", "replicate").is_duplicated())["run_id"]
    return {run: f"run {run[:8]}" if run in set(repeated) else text for run, text in said.items()}


def _fields(value: Mapping, place: str = ""):
    for name, inner in value.items():
        if isinstance(inner, Mapping):
            yield from _fields(inner, f"{place}{name}.")
        elif place or name not in _EACH:
            yield f"{place}{name}", inner


def _short(value) -> str:
    text = str(value)
    return text if len(text) <= _LONGEST else f"{text[:8]}…"
