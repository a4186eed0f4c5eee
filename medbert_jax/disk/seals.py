"""What a folder's JSON says of its own content and of the files beside it: sha256, compared when they are read.

A name or a size says little: files of another dataset bear the same names, and small ones have the same sizes. What an
earlier version wrote has no sums, and is taken as it is.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from medbert_jax.disk.whole_files import canonical_json, sha256_of

SEAL = "own_sha256"
"""Key of a sealed object: the sha256 (hex) of all the others."""
SUMS = "sha256"
"""Key of a sealed object: name of a file beside it → its sha256 (hex)."""


def sealed(said: Mapping) -> dict:
    """Return a JSON object with its seal, in place of one that it has."""
    return {**said, SEAL: _content_hash(said)}


def check_seal(path: Path, said: Mapping, cure: str) -> None:
    """Raise ValueError where an object, read from `path`, has a seal and is not what was sealed."""
    if said.get(SEAL, seal := _content_hash(said)) != seal:
        raise ValueError(
            f"{path.name} must be as it was written: got another content than its {SEAL} says, in {path.parent}; put"
            f" the file back from a copy, or {cure}"
        )


def changed_files(folder: Path, said: Mapping, names: Iterable[str] | None = None) -> list[str]:
    """Return which of the files `names` beside an object are others than those that it was sealed with.

    None: all that it names. A file that is not there is none of them, and one that it does not name is.
    """
    sums = said.get(SUMS)
    if not isinstance(sums, dict):  # none are said; what stands there is the seal's to look at
        return []
    names = sums if names is None else names
    return [name for name in names if (folder / name).is_file() and sha256_of(folder / name) != sums.get(name)]


def check_files(path: Path, said: Mapping, names: Iterable[str], cure: str) -> None:
    """Raise ValueError naming the `changed_files` beside `path`, the file that the object was read from."""
    if changed := changed_files(path.parent, said, names):
        raise ValueError(
            f"files of a dataset must be those that {path.name} was written with: got others as {', '.join(changed)}"
            f" in {path.parent} (sha256 differs); copy them again from where they are whole, or {cure}"
        )


def _content_hash(said: Mapping) -> str:
    content = json.loads(json.dumps({key: value for key, value in said.items() if key != SEAL}))
    return hashlib.sha256(canonical_json(content)).hexdigest()
