"""A function of one shard (or file), run for many: by processes on one machine."""

import contextlib
import functools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from typing import TypeVar

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
        self._context = _Context()

    def __enter__(self) -> "Workers":
        return self

    def __exit__(self, *_) -> None:
        if self._pool:
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
            at_work = (self._context.ready,)
            self._pool = ProcessPoolExecutor(self._workers, self._context, initializer=_start, initargs=at_work)
        try:
            # Submitting starts the processes. Polars reads its variable once, when it is imported, which a script does
            # that imports it at its top and is imported again by every process: the variable must be there by then.
            with _environment("POLARS_MAX_THREADS", str(max(1, self._cores // self._workers))):
                futures = [self._pool.submit(function, shard) for shard in shards]
            for done in as_completed(futures):
                yield done.result()
        except BrokenProcessPool:
            self._pool.shutdown()  # by then each has its exit code
            raise self._context.fault(self._workers) from None


class _Context(SpawnContext):
    """Keeps the processes that it starts, for what the pool does not tell: of what one died."""

    def __init__(self):
        super().__init__()
        self._started = []

    @functools.cached_property
    def ready(self) -> Event:
        """Whether a process has come so far as to work."""
        return self.Event()

    def Process(self, *args, **named):  # ty: ignore[incompatible-attribute-override]
        self._started.append(super().Process(*args, **named))
        return self._started[-1]

    def fault(self, workers: int) -> BaseException:
        """What to raise for a pool that broke."""
        codes = [one.exitcode for one in self._started]
        # Of the others the pool gets rid by SIGTERM.
        code = next((code for code in codes if code not in (None, 0, -signal.SIGTERM)), codes[0])
        if code == -signal.SIGINT:
            return KeyboardInterrupt()
        if code == -signal.SIGKILL:
            return ChildProcessError(
                f"each of {workers} workers must have the memory for one shard: got one that was killed, which is what"
                " the system does to a process that takes too much; give the same command again with fewer workers, or"
                " write the EHR tables with more shards"
            )
        if not self.ready.is_set():
            return ChildProcessError(
                'a script must start workers under `if __name__ == "__main__":`, for each of them runs it again, down'
                f" to there: got one that ended with {_told(code)} while it did; put the calls under that line, or give"
                " workers=1"
            )
        return ChildProcessError(
            f"workers must live until their work is done: got one that ended with {_told(code)}; what it said stands"
            " above: mend that, or give the same command again with one worker to see more"
        )


def _told(code: int | None) -> str:
    """An exit code, with the name of the signal where it was one."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):  # one that has no name
        return f"exit code {code} ({signal.Signals(-code).name})"
    return f"exit code {code}"


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


def _start(ready: Event) -> None:
    ready.set()
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C reaches all: one traceback is enough, that of the parent
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A pool's processes would wait for ever for a parent that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None  # nothing but a process of the pool runs this
    parent.join()
    os._exit(1)
