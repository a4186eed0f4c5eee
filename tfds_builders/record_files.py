"""Patient sequences as an ArrayRecord file of tf.train.Examples."""

import contextlib
import os
from collections.abc import Generator
from pathlib import Path

import numpy as np
from array_record.python import array_record_module

from medbert_jax.data.example_records import encode_records
from medbert_jax.data.sequences import PatientSequences

_RECORDS_AT_ONCE = 10_000  # fastest: the arrays stay in the cache


def write_records(path: Path, sequences: PatientSequences) -> int:
    """Write one record per patient, each in a group of its own, for random access; return the bytes of the records.

    Raises OSError where the disk takes no more.
    """
    size = 0
    with _as_os_error():
        writer = array_record_module.ArrayRecordWriter(os.fspath(path), "group_size:1")
    for start in range(0, len(sequences), _RECORDS_AT_ONCE):
        part = sequences.take(np.arange(start, min(start + _RECORDS_AT_ONCE, len(sequences))))
        records = encode_records(part)
        size += sum(map(len, records))
        with _as_os_error():
            for record in records:
                writer.write(record)
    with _as_os_error():
        writer.close()
    return size


@contextlib.contextmanager
def _as_os_error() -> Generator[None]:
    """The library says of a full disk that it is a RuntimeError, often only when the file is closed."""
    try:
        yield
    except RuntimeError as error:
        raise OSError(str(error).partition(";")[0]) from error
