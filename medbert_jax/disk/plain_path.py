"""A path for libraries that look for files by pattern: Orbax finds nothing that it wrote below a folder `a[b]`."""

import contextlib
import tempfile
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def plain_path(path: Path) -> Generator[Path]:
    """Yield the path, or where it is a pattern one that is none: through a link to its folder, gone after the block."""
    if not set("*?[") & set(str(path)):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="medbert-") as home:
        link = Path(home, "folder")
        link.symlink_to(path.parent.absolute(), target_is_directory=True)
        yield link / path.name
