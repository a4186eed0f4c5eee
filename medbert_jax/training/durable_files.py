"""Files that are old or new after a crash, never half, and their fingerprints."""

import hashlib
import json
import os
from pathlib import Path


def canonical_json(data: object) -> bytes:
    """JSON with sorted keys and fixed layout: equal data, equal bytes."""
    return (json.dumps(data, sort_keys=True, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def write_durably(path: Path, content: bytes) -> None:
    """Write a file whole: a crash leaves the old content or the new one, and at the return it is on disk."""
    temporary = path.with_name(f"{path.name}.new")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    wait_for_disk(path.parent)


def wait_for_disk(path: Path) -> None:
    """Return when a file, or the names in a folder, are on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def fingerprint(path: Path) -> list:
    """[bytes, sha256] of a file."""
    with open(path, "rb") as file:
        return [os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()]
