"""One process at a time: the lock of a file, which the system lets go of when its holder is killed."""

import contextlib
import os
from collections.abc import Callable, Generator
from pathlib import Path


@contextlib.contextmanager
def locked(
    path: Path,
    *,
    shared: bool = False,
    refusal: Exception | None = None,
    waiting: Callable[[], object] | None = None,
    stays: bool = True,
) -> Generator[None]:
    """Hold the lock of a file for the block; the file and its folder are made where they are not there.

    Args:
        path: the file, empty and for nothing but this.
        shared: beside others that share it, and not beside one who has it alone.
        refusal: raised where another process has the lock; without it the lock is waited for.
        waiting: called before it is waited for.
        stays: whether the file is left. It may be deleted by who holds the lock alone, here or otherwise: those who
            wait for it see that and take that of a new file.

    Raises OSError for a folder that cannot be written, and on a file system without locks.
    """
    import fcntl  # not on Windows, where what others wrote can be read

    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+b")  # noqa: SIM115
        except FileNotFoundError:  # the holder before has just removed the folder too
            continue
        with file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if refusal is not None:
                    raise refusal from None
                if waiting is not None:
                    waiting()
                fcntl.flock(file, kind)
            if not _is_at(file, path):  # the lock of a file that is gone keeps nobody out
                continue
            try:
                yield
            finally:
                if not stays:
                    path.unlink(missing_ok=True)
            return


def _is_at(file, path: Path) -> bool:
    """Whether the open file still has its name."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:
        return False
