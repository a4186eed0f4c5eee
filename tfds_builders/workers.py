"""A function of one shard, run for many: by processes on one machine."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool


class Workers:
    """Processes that each have one shard in memory at a time; to be used in `with`.

    `workers` 0 is one per core; a single one is this process.
    """

    def __init__(self, workers: int = 0):
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = workers or self._cores
        self._pool = None

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        if self._pool:
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, function: Callable[[int], int], shards: Sequence[int]) -> Iterator[int]:
        """Yield what `function`, which must be picklable, returns for each shard, as they are done.

        Raises ChildProcessError where a worker died without an error, as those do that the system kills for memory.
        """
        if min(self._workers, len(shards)) < 2:
            yield from map(function, shards)
            return
        if not self._pool:
            context, threads = multiprocessing.get_context("spawn"), max(self._cores // self._workers, 1)
            self._pool = ProcessPoolExecutor(self._workers, context, initializer=_start, initargs=(threads,))
        try:
            for done in as_completed([self._pool.submit(function, shard) for shard in shards]):
                yield done.result()
        except BrokenProcessPool:
            raise ChildProcessError(
                f"each of {self._workers} workers must have the memory for one shard: got one that died, which is what"
                " the system does to a process that takes too much; give the same command again with fewer workers, it"
                " goes on where it stopped, or write the EHR tables with more shards"
            ) from None


def _start(threads: int) -> None:
    # Before polars is imported, which reads it once: this module must not import it.
    os.environ.setdefault("POLARS_MAX_THREADS", str(threads))
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for a parent that was killed."""
    multiprocessing.parent_process().join()
    os._exit(1)
