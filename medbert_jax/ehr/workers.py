"""A function of one shard (or file), run for many: by processes on one machine."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.synchronize import Event
from typing import TypeVar

from medbert_jax.ehr.worker_deaths import WatchedContext

_ENDING = (signal.SIGINT, signal.SIGTERM)
_UNHANDLED = (signal.SIG_IGN, None)  # ignored, or handled by what is not Python
Item = TypeVar("Item")
Result = TypeVar("Result")


class Workers:
    """Processes that each have one shard in memory at a time; to be used in `with`.

    `workers` 0 is one per core that this process may use; a single one is this process. The cores are divided among
    the workers for polars too, unless POLARS_MAX_THREADS is set.
    """

    def __init__(self, workers: int = 0):
        self._cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        self._workers = workers or self._cores
        self._pool: ProcessPoolExecutor | None = None
        self._context = WatchedContext()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        if self._pool:
            if kind is not None and not issubclass(kind, Exception):  # who pressed Ctrl-C does not wait for a shard
                self._context.end()
            self._pool.shutdown(cancel_futures=True)

    def __call__(self, function: Callable[[Item], Result], shards: Sequence[Item]) -> Iterator[Result]:
        """Yield what `function`, which must be picklable, returns for each shard, as they are done.

        Raises ChildProcessError where a worker died without an error, and says of what; KeyboardInterrupt where that
        was Ctrl-C.
        """
        if min(self._workers, len(shards)) < 2:
            yield from map(function, shards)
            return
        if not self._pool:
            # Made before signals wait: with it starts a process of the library's, which lets them through again.
            at_work = (self._context.ready,)
            self._pool = ProcessPoolExecutor(self._workers, self._context, initializer=_start, initargs=at_work)
        try:
            # Submitting starts the processes. Polars reads its variable once, when it is imported, which a script does
            # that imports it at its top and is imported again by every process: the variable must be there by then.
            with _environment("POLARS_MAX_THREADS", str(max(1, self._cores // self._workers))), _later():
                futures = [self._pool.submit(function, shard) for shard in shards]
            for done in as_completed(futures):
                yield done.result()
        except BrokenProcessPool:
            self._pool.shutdown()  # by then each has its exit code
            raise self._context.fault(self._workers) from None


@contextlib.contextmanager
def _environment(name: str, value: str) -> Generator[None]:
    """A variable for the processes that are started meanwhile; one that the user has set stays."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


@contextlib.contextmanager
def _later() -> Generator[None]:
    """Signals wait for the end of the block, and in a process that it starts until that is at work."""
    came, handlers = [], {}
    if threading.current_thread() is threading.main_thread():  # Python's handlers run there, whichever thread is hit
        handlers = {number: handler for number in _ENDING if (handler := signal.getsignal(number)) not in _UNHANDLED}
    for number in handlers:
        signal.signal(number, lambda number, frame: came.append(number))
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for number in came[:1]:
            signal.raise_signal(number)


def _start(ready: Event) -> None:
    ready.set()
    for number in _ENDING:  # Ctrl-C reaches all: one sentence is enough, that of the parent
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _ENDING)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # nothing but a process of the pool runs this
    parent.join()
    os._exit(1)
