"""A folder that is replaced as a whole: the earlier one stays until all of the new one is there.

What is being made of EHR stands in `.EHR.new/RANDOM/` beside it, under the lock of `.EHR.new/lock`, and takes the place
of EHR in one step. A run that was killed leaves that folder behind; the next one that replaces EHR removes it.
"""

import contextlib
import ctypes
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

_NEW, _EARLIER, _LOCK = "new", "earlier", "lock"


@contextlib.contextmanager
def replaced(directory, ours: re.Pattern) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `directory` at the end of the block, unless that raises.

    Beside the folder that is yielded, in its parent, other files may be put: they are removed in the end.

    Args:
        directory: the folder to make or to replace.
        ours: path below it that the earlier set wrote: files of other names are kept in the new folder.

    Raises:
        BlockingIOError: another run is replacing the folder.
        OSError: `directory` is a file or a mount point.
    """
    out = Path(directory).resolve()
    if os.path.ismount(out) or (out.exists() and not out.is_dir()):
        what = "mount point" if out.is_dir() else "file"
        cure = "name a folder in it" if out.is_dir() else "name another"
        raise OSError(f"a set of tables must have a folder, which is replaced as a whole: got {out}, a {what}; {cure}")
    out.parent.mkdir(parents=True, exist_ok=True)
    holder = out.with_name(f".{out.name}.new")
    lock = _locked(holder, out)
    try:
        for left_behind in holder.iterdir():
            if left_behind.is_dir():
                _clear(left_behind, out, ours)
        work = Path(tempfile.mkdtemp(dir=holder, prefix=""))  # its name is new: a dying worker cannot write into it
        try:
            (work / _NEW).mkdir()
            yield work / _NEW
            _place(work, out)
        finally:
            _clear(work, out, ours)
    finally:
        (holder / _LOCK).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            holder.rmdir()
        os.close(lock)


def _locked(holder: Path, out: Path) -> int:
    """The descriptor that holds the lock of `holder`, which is made. The system lets go of a killed run's."""
    import fcntl  # not on Windows

    while True:
        holder.mkdir(exist_ok=True)
        try:
            descriptor = os.open(holder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:  # the run before has just removed the folder
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(holder / _LOCK)):
                return descriptor
        except FileNotFoundError:  # locked a file that is gone, or is another by now: once more
            pass
        except BlockingIOError:
            os.close(descriptor)
            raise BlockingIOError(
                f"a set of tables has one writer at a time: got {out}, which another run is writing; wait for it, stop"
                " it, or name another folder"
            ) from None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _place(work: Path, out: Path) -> None:
    """Put the new folder in its place, what is there into `work`."""
    if not out.exists():
        os.rename(work / _NEW, out)
        return
    shutil.copymode(out, work / _NEW)
    if not _exchanged(work / _NEW, out):
        # A reader may find no folder for a moment; `_clear` undoes a half.
        os.rename(out, work / _EARLIER)
        os.rename(work / _NEW, out)


def _exchanged(one: Path, other: Path) -> bool:
    """Whether the two folders have changed places, in one step: what Linux has a call for, on most file systems."""
    if sys.platform != "linux":
        return False
    call = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return call is not None and call(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0


def _clear(work: Path, out: Path, ours: re.Pattern) -> None:
    """Remove a run's folder; what it took from `out` and is not of a set of tables goes back."""
    if not out.exists() and (work / _EARLIER).exists():
        os.rename(work / _EARLIER, out)
    for folder in (work / _NEW, work / _EARLIER):  # after an exchange the earlier set stands under the name of the new
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder)
            kept = (path.is_symlink() or not path.is_dir()) and not ours.fullmatch(name.as_posix())
            if kept and not (out / name).exists():
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, out / name)
    shutil.rmtree(work, ignore_errors=True)
