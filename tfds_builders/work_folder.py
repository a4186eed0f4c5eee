"""What has been done so far, shard by shard: files, and for each shard a done-marker that holds their checksums.

FOLDER/STEP/00003.NAME is what a step made of shard 3 and FOLDER/STEP/00003.done says so; it is written last. Files
appear whole, by a rename, and two processes that do one shard write the same bytes. So a run that was killed, or a job
array of which some tasks failed, is simply started again: what has a marker whose checksums hold is not done twice.
"""

import contextlib
import functools
import hashlib
import io
import json
import shutil
from collections.abc import Callable, Collection, Generator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medbert_jax.disk.lock import locked
from medbert_jax.disk.stored_json import parse_object
from medbert_jax.disk.whole_files import sha256_of, whole_file, write_whole

_IN_USE = "in_use"


@dataclass(frozen=True)
class WorkFolder:
    """The folder of one dataset in the making; a path alone, so that it can be sent to any process."""

    path: Path

    def file(self, step: str, shard: int, name: str) -> Path:
        """Return where a step keeps what it made of a shard under `name`."""
        return self.path / step / f"{shard:05d}.{name}"

    @contextlib.contextmanager
    def in_use(self) -> Generator[None]:
        """Keep `remove_unless_used` of other processes away; the system lets go of a killed one's lock."""
        with contextlib.ExitStack() as held:
            with contextlib.suppress(OSError):  # of file systems without locks; there nothing is removed for others
                held.enter_context(locked(self.path / _IN_USE, shared=True))
            yield

    def remove_unless_used(self) -> bool:
        """Remove the folder, unless a process is in `in_use`; return whether it was removed."""
        try:
            with locked(self.path / _IN_USE, refusal=BlockingIOError()):
                shutil.rmtree(self.path, ignore_errors=True)
        except OSError:
            return False
        return True

    def seal(self, step: str, shard: int, files: Mapping[str, Callable[[Path], object]], note: dict) -> None:
        """Let each of `files` write to the path that it is called with; then write the marker, with `note` (JSON).

        Raises OSError with file and cure where the disk takes no more.
        """
        path, checksums = self.file(step, shard, "done"), {}
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            for name, write in files.items():
                path = self.file(step, shard, name)
                with whole_file(path) as partial:
                    write(partial)
                    checksums[name] = sha256_of(partial)
            path, text = self.file(step, shard, "done"), json.dumps({"files": checksums, "note": note}, sort_keys=True)
            write_whole(path, f"{hashlib.sha256(text.encode()).hexdigest()}\n{text}")
        except OSError as error:
            raise not_written(error, path) from error

    def note(self, step: str, shard: int, *, verify: Collection[str] | None = None) -> dict | None:
        """Return the note of a shard, or None where the step has to be done (again).

        That is where there is no marker, or where its own checksum or that of one of its files does not hold; `verify`
        names the files to look at (None: all of them).
        """
        try:
            marker = self._marker(step, shard)
            for name in marker["files"] if verify is None else verify:
                if sha256_of(self.file(step, shard, name)) != marker["files"][name]:
                    return None
        except (FileNotFoundError, ValueError):
            return None
        return marker["note"]

    def noted(self, step: str, shard: int) -> dict:
        """Return the note of a shard that is done. Errors as of a file that is not there, or of a damaged marker."""
        return self._marker(step, shard)["note"]

    def checksum(self, step: str, shard: int, name: str) -> str:
        """Return what the marker says of a file: its sha256 (hex)."""
        return self._marker(step, shard)["files"][name]

    def columns(self, step: str, shard: int, name: str) -> dict[str, np.ndarray]:
        """Return what `write_columns` wrote. Raises ValueError when it is not what the marker's checksum says."""
        content = self.file(step, shard, name).read_bytes()
        if hashlib.sha256(content).hexdigest() != self._marker(step, shard)["files"][name]:
            raise ValueError(
                f"work on a shard must have the checksum of its marker: got another for {name} of shard {shard};"
                " give the same command again, which makes it anew"
            )
        file = io.BytesIO(content)
        return {str(column): np.load(file) for column in np.load(file)}

    def _marker(self, step: str, shard: int) -> dict:
        checksum, _, text = self.file(step, shard, "done").read_text("utf-8").partition("\n")
        if hashlib.sha256(text.encode()).hexdigest() != checksum:
            raise ValueError(f"a marker must have the checksum of its first line: shard {shard} of {step} has not")
        return parse_object(text)


def one_at_a_time(dataset: Path, announce: Callable[[str], None]) -> contextlib.AbstractContextManager[None]:
    """Wait until no other process makes the dataset of that name; the system lets go of a killed one's lock."""
    waiting = functools.partial(announce, f"another process is making {dataset}: waiting for it")
    return locked(dataset.with_name(f".{dataset.name}.lock"), waiting=waiting)


def not_written(error: OSError, path: Path) -> OSError:
    """Return the error of a disk that takes no more, with file and cure: libraries leave them out."""
    free = shutil.disk_usage(next(above for above in path.absolute().parents if above.exists())).free
    return OSError(
        f"what is made must be written to disk whole: got '{error.strerror or error}' for {path}, with"
        f" {free / 1e9:,.1f} GB free there; make room, see that this user may write there, and give the same command"
        " again: what was done before stays"
    )


def write_columns(path: Path, columns: dict[str, np.ndarray]) -> None:
    """Write columns one after another, their names first: the same columns are the same bytes, unlike in an .npz."""
    with open(path, "wb") as file:
        for values in (np.array(list(columns), np.str_), *columns.values()):
            np.save(file, values, allow_pickle=False)
