"""Hashes of columns: the shard of every patient, and sums over a table that no order of rows changes."""

import numpy as np
import polars as pl

from medbert_jax.ehr.hashing import hash_start, mix64


def shard_numbers(patient_ids: pl.Series, shards: int) -> np.ndarray:
    """The shard of every patient, (n,): a hash of the id, so that a patient's rows meet wherever they came from."""
    return (text_hash(patient_ids, "shard") % np.uint64(shards)).astype(np.int64)


def text_hash(texts: pl.Series, key: str) -> np.ndarray:
    """`patient_hash` of a text column without nulls, (n,) uint64, several times as fast; empty texts have one too."""
    runs = texts.rle().struct.unnest()
    if 2 * runs.height > len(texts):
        return _hash_of_each(texts, key)
    return np.repeat(_hash_of_each(runs["value"], key), runs["len"].to_numpy())  # as in sorted tables: once per run


def row_sums(name: str, frame: pl.DataFrame) -> tuple[int, int]:
    """Two sums, modulo 2^64, of a hash of every row: the same in any order, and shards add up to the whole."""
    rows = np.full(frame.height, hash_start(name), np.uint64)
    for column, dtype in frame.schema.items():
        values = frame[column]
        if values.null_count() == frame.height:
            rows = mix64(rows)
            continue
        if dtype == pl.String:
            words = text_hash(values.fill_null(""), column)
        elif dtype == pl.Float64:
            words = values.fill_null(0).to_numpy().astype("<f8").view("<u8")
        else:
            words = values.to_physical().cast(pl.Int64).fill_null(0).to_numpy().astype("<i8").view("<u8")
        words = mix64(words)
        if values.has_nulls():
            words = np.where(values.is_not_null().to_numpy(), words, np.uint64(0))
        rows = mix64(rows ^ words)
    return int(rows.sum(dtype=np.uint64)), int(mix64(~rows).sum(dtype=np.uint64))


def _hash_of_each(texts: pl.Series, key: str) -> np.ndarray:
    state = np.full(len(texts), hash_start(key), np.uint64)
    padded = (texts.rename("t").to_frame().select(pl.col("t") + "\0" * 8)).to_series().cast(pl.Binary)
    lengths = texts.str.len_bytes().to_numpy().astype(np.uint64)
    for start in range(0, int(lengths.max(initial=0)), 8):
        # Eight bytes are there, thanks to the padding, in every text that reaches so far.
        word = padded.bin.slice(start, 8).bin.reinterpret(dtype=pl.UInt64, endianness="little").fill_null(0).to_numpy()
        state = np.where(lengths > np.uint64(start), mix64(state ^ word), state)
    return mix64(state ^ lengths)
