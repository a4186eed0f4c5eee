"""The manifest of a step: its files and their checksums. A step is committed when its manifest exists.

Orbax loads flipped bits without a word, hence the checksums, verified before every restore.
"""

import contextlib
import hashlib
import re
import shutil
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from medbert_jax.disk.stored_json import form_faults, parse_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.disk.whole_files import canonical_json, fingerprint, wait_for_disk, write_whole

MANIFEST, STEPS = "MANIFEST.json", "steps"
ASIDE = ".damaged"
"""Ending of a step's folder that a later one of its number took the place of."""
RUN_FILES = ("config.json", "vocabulary.tsv")
_FORMAT = 2  # those of format 1 say a metric too, which nothing asks for
_STEP_FOLDER = re.compile(r"\d{6,}(\.orbax-checkpoint-tmp.*)?")


class CheckpointError(RuntimeError):
    """A step cannot be written, or is not as it was written."""


@dataclass(frozen=True)
class Manifest:
    """What a committed step consists of."""

    format: int
    step: int
    changes: dict
    """Flattened fields of the configuration in force where they differ from config.json."""
    arrays: dict[str, dict[str, list]]
    """Item → path of the leaf → [shape, dtype]."""
    run_files: dict[str, list]
    """config.json and vocabulary.tsv → [bytes, sha256]."""
    files: dict[str, list]
    """Every other file of the step, relative to its folder → [bytes, sha256]."""


def step_folder(run_path: str | Path, step: int) -> Path:
    """Where a step lies, whether it exists or not."""
    return Path(run_path).absolute() / STEPS / _step_name(step)


def _step_name(step: int) -> str:
    return f"{step:06d}"


def committed_steps(run_path: str | Path) -> list[int]:
    """Numbers of the steps that have a manifest, ascending. Reads names only."""
    manifests = (Path(run_path) / STEPS).glob(f"*/{MANIFEST}")
    return sorted(int(path.parent.name) for path in manifests if _is_step_name(path.parent.name))


def _is_step_name(name: str) -> bool:
    return name.isdecimal() and name == _step_name(int(name))


def misnamed_steps(run_path: str | Path) -> list[str]:
    """Of folders that hold a step and are called none: what is wrong, and what to do. For where no step is found."""
    faults = []
    for file in sorted((Path(run_path) / STEPS).glob(f"*/{MANIFEST}")):
        if file.parent.name.endswith(ASIDE) or _is_step_name(file.parent.name):
            continue
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # none of ours
            faults.append(_misnamed(file.parent, parse_object(file.read_bytes())["manifest"]["step"]))
    return faults


def _misnamed(folder: Path, step: int) -> str:
    own, run_path = step_folder(folder.parent.parent, step), folder.parent.parent
    cure = f"rename the folder to {own.name}"
    if own.exists():
        try:
            verify_step(run_path, step)
            cure = f"delete {folder}: {own.name} is there and intact"
        except CheckpointError:  # then a copy may be all that is left
            cure = f"delete {own.name}, which is damaged, and {cure}"
    return (
        f"a step folder must bear the number of its manifest: got {STEPS}/{folder.name} of {run_path} with the "
        f"manifest of step {step}; {cure}"
    )


def commit_step(run_path: Path, step: int, *, changes: dict, arrays: dict) -> None:
    """Bring every file of a step to disk, then write its manifest, which makes it a step."""
    folder = step_folder(run_path, step)
    paths = sorted(folder.rglob("*"))
    for path in paths:
        wait_for_disk(path)
    files = {str(path.relative_to(folder)): fingerprint(path) for path in paths if path.is_file()}
    run_files = {name: fingerprint(run_path / name) for name in RUN_FILES}
    manifest = Manifest(_FORMAT, step, changes, arrays, run_files, files)
    write_whole(folder / MANIFEST, _sealed(asdict(manifest)))
    wait_for_disk(folder.parent)


def read_manifest(run_path: str | Path, step: int) -> Manifest:
    """The manifest of a committed step, its own checksum verified."""
    file = step_folder(run_path, step) / MANIFEST
    if not file.is_file():
        raise CheckpointError(
            f"only a committed step can be read: step {step} of {run_path} has no {MANIFEST}; choose one of "
            f"{committed_steps(run_path) or 'none'}"
        )
    content = file.read_bytes()
    try:
        body = parse_object(content).get("manifest")
    except ValueError:
        body = None
    if not isinstance(body, dict) or content != _sealed(body):
        raise _damaged(run_path, step, [f"{STEPS}/{file.parent.name}/{MANIFEST} has other bytes"])
    refuse_newer(f"the manifest of step {step} of {run_path}", body.get("format"), _FORMAT, error=CheckpointError)
    if faults := list(form_faults(body, Manifest)):
        raise _damaged(run_path, step, [f"{STEPS}/{file.parent.name}/{MANIFEST}, where {', '.join(faults[:8])}"])
    if body["step"] != step:
        raise CheckpointError(_misnamed(file.parent, body["step"]))
    return Manifest(**{field.name: body[field.name] for field in fields(Manifest)})


def verify_step(run_path: str | Path, step: int) -> Manifest:
    """Compare every file of a step, config.json and vocabulary.tsv with the manifest; all faults in one."""
    manifest, folder = read_manifest(run_path, step), step_folder(run_path, step)
    expected = {name: Path(run_path) / name for name in manifest.run_files}
    expected |= {f"{STEPS}/{folder.name}/{name}": folder / name for name in manifest.files}
    recorded = [*manifest.run_files.values(), *manifest.files.values()]
    faults = []
    for (name, file), (size, digest) in zip(expected.items(), recorded, strict=True):
        if not file.is_file():
            faults.append(f"{name} is missing")
        elif (found := file.stat().st_size) != size:
            faults.append(f"{name} has {found} bytes instead of {size}")
        elif fingerprint(file)[1] != digest:
            faults.append(f"{name} has other bytes")
    if faults:
        raise _damaged(run_path, step, faults)
    return manifest


def uncommit_step(folder: Path) -> None:
    """Delete a step. The manifest goes first: whatever interrupts this, no half step looks whole."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def remove_uncommitted(run_path: Path) -> tuple[str, ...]:
    """Delete the folders of interrupted saves, as the holder of the lock. Returns their names."""
    folders = [path for path in sorted((run_path / STEPS).iterdir()) if _STEP_FOLDER.fullmatch(path.name)]
    stale = [folder for folder in folders if not (folder / MANIFEST).exists()]
    for folder in stale:
        shutil.rmtree(folder)
    return tuple(folder.name for folder in stale)


def _sealed(body: dict) -> bytes:
    return canonical_json({"manifest": body, "sha256": hashlib.sha256(canonical_json(body)).hexdigest()})


def _damaged(run_path: str | Path, step: int, faults: list[str]) -> CheckpointError:
    return CheckpointError(
        f"a step must be as it was written: step {step} of {run_path} is damaged: {'; '.join(faults)}; "
        "copy these files again from an intact place, or delete that folder and take another step"
    )
