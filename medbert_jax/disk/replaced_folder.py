"""A folder that is replaced as a whole: the earlier one stays until all of the new one is there.

What is being made of EHR stands in `.EHR.new/RANDOM/` beside it, under the lock of `.EHR.lock`, and takes the place of
EHR in one step. A run that was killed leaves both behind; the next one that replaces EHR removes them.
"""

import contextlib
import ctypes
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

from medbert_jax.disk.lock import locked
from medbert_jax.disk.whole_files import meant_for, wait_for_disk

_NEW, _EARLIER = "new", "earlier"


@contextlib.contextmanager
def replaced(directory, ours: re.Pattern) -> Generator[Path]:
    """Yield an empty folder that takes the place of `directory` at the end of the block, unless that raises.

    Then all of it is on disk. Beside the folder that is yielded, in its parent, other files may be put: they are
    removed in the end.

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
        raise OSError(f"what is replaced as a whole must have a folder of its own: got {out}, a {what}; {cure}")
    holder = out.with_name(f".{out.name}.new")
    refusal = BlockingIOError(
        f"a folder that is replaced as a whole has one writer at a time: got {out}, which another run is writing; wait"
        " for it, stop it, or name another folder"
    )
    with locked(out.with_name(f".{out.name}.lock"), refusal=refusal, stays=False):
        holder.mkdir(exist_ok=True)
        for left_behind in holder.iterdir():
            _clear(left_behind, out, ours)
        work = Path(tempfile.mkdtemp(dir=holder, prefix=""))  # its name is new: a dying worker cannot write into it
        try:
            (work / _NEW).mkdir()
            yield work / _NEW
            _place(work, out)
        finally:
            _clear(work, out, ours)
            with contextlib.suppress(OSError):  # what a dying worker still writes is removed by the next run
                holder.rmdir()


def _place(work: Path, out: Path) -> None:
    """Bring the new folder to disk and put it in its place, what is there into `work`."""
    for path in (*(work / _NEW).rglob("*"), work / _NEW):
        wait_for_disk(path)
    if not out.exists():
        os.rename(work / _NEW, out)
    else:
        shutil.copymode(out, work / _NEW)
        if not _exchanged(work / _NEW, out):
            # A reader may find no folder for a moment; `_clear` undoes a half.
            os.rename(out, work / _EARLIER)
            os.rename(work / _NEW, out)
    wait_for_disk(out.parent)


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
            its = ours.fullmatch(name.with_name(meant_for(name.name)).as_posix())
            kept = (path.is_symlink() or not path.is_dir()) and not its
            if kept and not (out / name).exists():
                (out / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.move(path, out / name)
    shutil.rmtree(work, ignore_errors=True)
