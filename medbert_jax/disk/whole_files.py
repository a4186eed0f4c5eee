"""Files that are old or new after a crash, never half, and their fingerprints.

A file is written beside its place, as `.NAME.NUMBER.partial`, brought to disk, and renamed over what is there. What a
killed process leaves keeps that name: `meant_for` tells it from other files.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Generator
from pathlib import Path

_PARTIAL = re.compile(r"\.(.+)\.\d+\.partial")


@contextlib.contextmanager
def whole_file(path) -> Generator[Path]:
    """Yield the path of a new file that takes the place of `path` at the end of the block, unless that raises.

    A crash leaves the old content or the new one; after the block it is on disk. The mode of an earlier file stays, a
    link's target is replaced and not the link. The folder must be there.
    """
    if os.path.exists(path) and not os.path.isfile(path):  # a device or a pipe, as /dev/stdout, is nothing to replace
        yield Path(path)
        return
    path = Path(os.path.realpath(path))
    # The number is random, since process ids of two machines on one file system may be equal.
    partial = path.with_name(f".{path.name}.{secrets.randbits(48)}.partial")
    try:
        yield partial
        if path.exists():
            shutil.copymode(path, partial)
        put_in_place(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def write_whole(path, content) -> None:
    """Write text (as UTF-8) or bytes as `whole_file`."""
    with whole_file(path) as partial, open(partial, "wb") as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path, data: object) -> None:
    """Write JSON for people as `whole_file`: indented, keys in their order, UTF-8."""
    write_whole(path, json.dumps(data, indent=1, ensure_ascii=False))


def canonical_json(data: object) -> bytes:
    """JSON with sorted keys and fixed layout: equal data, equal bytes."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def put_in_place(new: Path, path: Path) -> None:
    """Rename a file, over what is there; its content is on disk before, its name at the return."""
    wait_for_disk(new)
    os.replace(new, path)
    wait_for_disk(path.parent)


def wait_for_disk(path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno != errno.EINVAL:  # what a file system says that cannot be asked this of a folder
            raise
    finally:
        os.close(descriptor)


def meant_for(name: str) -> str:
    """The name of the file that an unfinished file was to become; of any other, its own."""
    match = _PARTIAL.fullmatch(name)
    return match[1] if match else name


def remove_unfinished(folder: Path) -> None:
    """Remove what killed processes left unfinished, as the only one who writes into the folder."""
    for path in folder.iterdir():
        if meant_for(path.name) != path.name:
            path.unlink()


def sha256_of(path) -> str:
    """The sha256 (hex) of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fingerprint(path) -> list:
    """[bytes, sha256] of a file."""
    return [os.path.getsize(path), sha256_of(path)]
