"""Labels of patients for the second pretraining task, in place of the prolonged stays that a dataset has."""

from dataclasses import replace

import numpy as np

from medbert_jax.data.example_records import OUTCOMES
from medbert_jax.data.sequences import PatientSequences
from medbert_jax.disk.whole_files import sha256_of

(TASK,) = OUTCOMES["pretraining"]


def with_labels(sequences: PatientSequences, path: str) -> PatientSequences:
    """The patients with the labels of a file (Parquet: patient_id text, label 0 or 1) as their prolonged_los.

    The outcome keeps its name, under which the task's loss and metrics stand. ValueError where the file is none, or
    does not have each of these patients once.
    """
    import polars as pl  # those who pretrain on the dataset's own labels never pay for it

    from medbert_jax.disk.tables_on_disk import read_parquet

    try:
        table = read_parquet(path).select(pl.col("patient_id").cast(pl.Binary), pl.col("label").cast(pl.Int32))
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as fault:
        raise ValueError(
            f"patient_labels must be a Parquet file with patient_id and label: got {path} ({type(fault).__name__}); "
            "give another file"
        ) from None
    ids = pl.DataFrame({"patient_id": pl.Series(sequences.patient_id.tolist(), dtype=pl.Binary)})
    labels = ids.join(table, on="patient_id", how="left", maintain_order="left")["label"]
    missing, foreign = labels.null_count(), int((~labels.is_in([0, 1])).sum())
    if missing or foreign or len(labels) != len(ids):
        raise ValueError(
            f"patient_labels must have each patient once, with 0 or 1: got {missing:,} of {len(ids):,} patients "
            f"without a label, {foreign:,} with another and {len(labels) - len(ids):,} again in {path}; make the "
            "labels of the tables that the dataset was made of"
        )
    outcome = labels.to_numpy().astype(np.int32)
    return replace(sequences, outcomes={**sequences.outcomes, TASK: outcome})


def told_labels(path: str) -> dict[str, str]:
    """What identifies the labels of a run, wherever the file lies; nothing where they are the dataset's."""
    return {"patient_labels_sha256": sha256_of(path)} if path else {}
