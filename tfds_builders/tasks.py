"""Who works on which shards: one task of a job array or all of them, processes or Beam, and how it goes."""

import contextlib
import functools
import re
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from medbert_jax.ehr.workers import Workers
from tfds_builders.shards import SERIALIZED
from tfds_builders.work_folder import WorkFolder

_WORTH_PROCESSES = 16 * 2**20  # bytes of EHR tables that take longer than the start of processes


def shards_of(shard: str | None, shards: int) -> list[int]:
    """Return the shards of a task "i/N", of all of them without one."""
    if shard is None:
        return list(range(shards))
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    if not match or int(match[1]) >= int(match[2]):
        raise ValueError(f"shard must be i/N with i from 0 to N − 1, as in 3/8: got {shard!r}; name one task of N")
    return list(range(int(match[1]), shards, int(match[2])))


def each_shard(workers: int, beam: Sequence[str], ehr_directory: Path) -> contextlib.AbstractContextManager:
    """Return what calls a function for each of some shards: processes, or Beam."""
    size = sum(path.stat().st_size for path in ehr_directory.rglob("*.parquet"))
    if not beam:
        return Workers(workers or int(size < _WORTH_PROCESSES))
    try:
        from tfds_builders.beam_pipeline import in_beam, read_options
    except ModuleNotFoundError as error:
        raise ValueError(
            f"Apache Beam must be installed to run a pipeline: got no module {error.name};"
            " pip install 'medbert-jax[beam]', or leave the options for Beam out"
        ) from None
    return contextlib.nullcontext(functools.partial(in_beam, options=read_options(beam, ehr_bytes=size)))


def do(
    function: Callable[[int], int],
    step: str,
    shards: list[int],
    work: WorkFolder,
    each: Callable[[Callable[[int], int], list[int]], Iterable[int]],
    announce: Callable[[str], None],
) -> None:
    """Do a step for those of the shards that have no valid marker of it, and tell how it goes."""
    what = step.partition("-")[0]
    missing = [number for number in shards if work.note(step, number) is None]
    if len(missing) < len(shards):
        announce(f"{what} before: {len(shards) - len(missing)} of {len(shards)} shards")
    started, patients = time.monotonic(), 0
    for done, number in enumerate(each(function, missing), start=1):
        patients += sum(work.noted(SERIALIZED, number)["sizes"])
        seconds = max(time.monotonic() - started, 1e-9)
        announce(
            f"{what} shard {done}/{len(missing)}: {patients:,} patients, {patients / seconds:,.0f}/s,"
            f" {seconds / done * (len(missing) - done):.0f} s left"
        )
