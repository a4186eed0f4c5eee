"""EHR tables of a study that are made from others: with one fold of the patients held out, and of two sources."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl

from medbert_jax.ehr.hashing import patient_hash
from medbert_jax.ehr.schema import EhrSource, EhrTables
from medbert_jax.ehr.shard_files import new_folder, seal, write_shard
from medbert_jax.ehr.tables import read_shard, read_source, read_tables
from medbert_jax.ehr.text_hash import shard_numbers

_KEY = "study fold"


def write_fold(tables: Path, out: Path, *, fold: int, folds: int, validation_parts: int) -> EhrSource:
    """Write tables with splits of their own: the patients of a fold are for the test, so no pretraining on what is
    written, and no fine-tuning, learns from one of them; a part of the others is for validation, the rest for training.

    Each patient is in one fold, whatever the number of shards.
    """
    source, splits, records = read_source(tables), [], []
    with new_folder(out) as new:
        for shard in range(source.shards):
            part = read_shard(tables, shard)
            ids = part.patients["patient_id"]
            # By another key in every fold: who chooses settings in one trains in others.
            chooses = _part_of(ids, f"{_KEY} {fold}, validation", validation_parts) == 0
            split = np.where(_part_of(ids, _KEY, folds) == fold, "test", np.where(chooses, "validation", "train"))
            splits.append(pl.DataFrame({"patient_id": ids, "split": split.tolist()}))
            records.append(write_shard(part, new, shard, source.shards))
        return seal(new, source, records, splits=pl.concat(splits))


def write_joined(tables: Path, more: Path, out: Path) -> EhrSource:
    """Write the patients of two sets of tables as one, in the shards of the first; those of the second are in memory.

    ValueError where a patient is in both.
    """
    source, others, records = read_source(tables), read_tables(more), []
    shard_of = {name: shard_numbers(frame["patient_id"], source.shards) for name, frame in others.present().items()}
    with new_folder(out) as new:
        for shard in range(source.shards):
            part = read_shard(tables, shard)
            frames = part.present()
            for name, frame in others.present().items():
                came = frame.filter(pl.Series(shard_of[name] == shard))
                frames[name] = pl.concat([frames[name], came]) if name in frames else came
            records.append(write_shard(EhrTables(**frames, source=part.source), new, shard, source.shards))
        said = tuple(dict.fromkeys((*source.assumptions, *others.source.assumptions)))
        return seal(new, replace(source, assumptions=said), records)


def _part_of(patient_ids: pl.Series, key: str, parts: int) -> np.ndarray:
    return (patient_hash(patient_ids, key) % np.uint64(parts)).astype(np.int64)
