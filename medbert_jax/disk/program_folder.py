"""The folder of the user's in which compiled programs are kept from run to run, of a bounded size.

MEDBERT_CACHE names another than `medbert_jax` in the system's place for caches, or says `off`. Who can write to it can
have their code run: it is open to its owner alone.
"""

import contextlib
import hashlib
import os
import platform
import sys
import tempfile
import time
import zlib
from pathlib import Path

NAMES_IT = "MEDBERT_CACHE"
LARGEST = 2**30
"""Bytes; what was used longest ago goes first."""


def program_folder(largest: int = LARGEST) -> Path | None:
    """Return the folder for programs of this machine, made and cut down to `largest` bytes; None where it is `off`.

    Programs are compiled for what a processor can do, so in a home that several machines share each kind has a folder
    of its own. Raises OSError where the folder cannot be written.
    """
    named = os.environ.get(NAMES_IT, "")
    if named.lower() == "off":
        return None
    programs = (Path(named).expanduser().absolute() if named else _caches() / "medbert_jax") / "programs"
    folder = programs / _processor()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder):  # a home may be there and yet take no files
        pass
    _remove_damaged(folder)
    _cut_down(programs, largest)
    return folder


def _caches() -> Path:
    """The system's place for what can be made again."""
    if sys.platform == "darwin":
        return Path("~/Library/Caches").expanduser()
    named = os.environ.get("XDG_CACHE_HOME", "")
    return Path(named) if os.path.isabs(named) else Path("~/.cache").expanduser()


def _processor() -> str:
    """A name for machines that can run each other's programs."""
    able = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        able += next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return f"{platform.machine()}-{hashlib.sha256(able.encode()).hexdigest()[:8]}"


def _remove_damaged(folder: Path) -> None:
    """Remove what came since the last time and is no whole file of JAX's: else it would complain of it in every run.

    A full disk and a killed process leave such. One that another process is writing is removed with them: it is
    compiled once more. Of zstd's, in which JAX compresses where it finds that, nothing but empty ones is known.
    """
    stamp, began = folder / ".checked", time.time()
    before = stamp.stat().st_mtime if stamp.exists() else 0.0
    for path in folder.glob("*-cache"):
        with contextlib.suppress(OSError):
            if path.stat().st_mtime < before:
                continue
            content = path.read_bytes()
            if not content or (content.startswith(b"\x78") and not _inflates(content)):
                path.unlink()
    stamp.touch()
    os.utime(stamp, (began, began))


def _inflates(content: bytes) -> bool:
    try:
        zlib.decompress(content)
    except zlib.error:
        return False
    return True


def _cut_down(programs: Path, largest: int) -> None:
    """Remove what was used longest ago until `largest` bytes are left; other processes may do the same meanwhile."""
    found = []
    for path in programs.glob("*/*"):
        with contextlib.suppress(OSError):
            about = path.stat()
            found.append((max(about.st_atime, about.st_mtime), about.st_size, path))
    size = sum(size for _, size, _ in found)
    for _, bytes_, path in sorted(found):
        if size <= largest:
            break
        with contextlib.suppress(OSError):
            path.unlink()
        size -= bytes_
