"""One process at a time: the lock of a file, which the system lets go of when its holder is killed."""

import contextlib
import errno
import os
import sys
from collections.abc import Callable, Generator
from pathlib import Path

_WITHOUT = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}


class NoLocksError(OSError):
    """There are no locks, by which one process at a time writes."""


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

    Raises OSError for a folder that cannot be written, NoLocksError on a system or file system without locks.
    """
    try:
        import fcntl  # here, so that what others wrote can be read without
    except ImportError:
        raise NoLocksError(
            f"what is written is guarded by the locks of Linux or macOS: got {sys.platform}, which has none; on Windows"
            " use WSL (`wsl --install`) or a Linux container"
        ) from None
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    while True:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "a+b")  # noqa: SIM115
        except FileNotFoundError:
            if path.is_symlink():  # to nowhere, and that does not pass
                raise
            continue  # the holder before has just removed the folder too
        with file:
            try:
                fcntl.flock(file, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                if refusal is not None:
                    raise refusal from None
                if waiting is not None:
                    waiting()
                fcntl.flock(file, kind)
            except OSError as error:
                if error.errno in _WITHOUT:
                    raise NoLocksError(
                        "a file system that is written to must have locks, which keep a second writer out: got"
                        f" '{error.strerror}' for {path}; name a folder on another disk (a local one has them), or have"
                        " it mounted with them (NFS: its lock service; Lustre: -o flock)"
                    ) from None
                raise
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
