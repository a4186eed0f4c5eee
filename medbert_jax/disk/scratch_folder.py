"""A folder for what one run needs and nobody keeps."""

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def scratch_beside(folder: str | Path) -> Generator[Path]:
    """Yield an empty folder beside `folder`, on a disk with room for the like of it; it is removed at the end."""
    folder = Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.scratch-", dir=folder.resolve().parent) as scratch:
        yield Path(scratch)


@contextmanager
def scratch_folder() -> Generator[Path]:
    """Yield an empty folder where the system keeps such (TMPDIR), readable by this user alone; removed at the end."""
    with tempfile.TemporaryDirectory(prefix="medbert-") as scratch:
        yield Path(scratch)
