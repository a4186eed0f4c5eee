"""The folder of one training run: what was trained, on which codes, its checkpoints and its metrics.

config.json and vocabulary.tsv are written once and never change; README.md is a model card for people and is
never hashed; steps/ belongs to `checkpointing`; one process at a time may write.
"""

import contextlib
import json
import platform
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import jax

from medbert_jax import __version__
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.disk.lock import NoLocksError, locked
from medbert_jax.disk.whole_files import canonical_json, meant_for, remove_unfinished, write_whole
from medbert_jax.training.manifest import RUN_FILES, STEPS, remove_uncommitted
from medbert_jax.training.processes import all_processes
from medbert_jax.training.progress import versions

CONFIG, VOCABULARY = RUN_FILES
CARD, METRICS, LOCK = "README.md", "metrics.jsonl", "lock"


class RunDirectoryError(ValueError):
    """A run folder cannot be used as asked."""


@dataclass(eq=False)
class RunDirectory:
    """One run folder, open for writing by this process until `close` or the end of its `with` block."""

    path: Path
    config: dict
    """The configuration the run was created with, as it stands in config.json."""
    changes: dict = field(default_factory=dict)
    """Flattened fields that this opening gives another value than `config`, by leave of `may_differ`."""
    removed: tuple[str, ...] = ()
    """Folders of interrupted saves that this opening deleted."""
    _lock: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)

    @classmethod
    def create_or_open(
        cls,
        path: str | Path,
        *,
        config: dict,
        vocabulary: Vocabulary,
        kind: Literal["pretrain", "finetune"] = "pretrain",
        may_differ: Collection[str] = (),
        card: Mapping[str, object] | None = None,
    ) -> "RunDirectory":
        """Create the run folder, or open it again for writing.

        `config` is JSON data with the ModelConfig under "model"; `kind` joins it. `may_differ` names
        flattened fields, or their prefixes ("steps", "mesh", "rows.batch_size"), that may change when a run
        goes on; the values in force are in `changes` and in the manifest of every step. `card` holds facts
        for the model card ("dataset", "dataset_hash", "parameters", …). With several processes, process 0
        writes and the others wait. Raises RunDirectoryError for a foreign, unwritable or locked folder, and
        for another configuration or vocabulary, with every difference.
        """
        path = Path(path).absolute()
        config = {**_as_json(config), "kind": kind}
        lock, removed, changes = contextlib.ExitStack(), (), {}
        if jax.process_index() == 0:
            try:
                _check_own(path)
                refusal = RunDirectoryError(
                    f"a run folder has one writer at a time: got {path}, which another process is writing; wait for "
                    "it, stop it, or choose another folder"
                )
                lock.enter_context(locked(path / LOCK, refusal=refusal))
                if not (path / CONFIG).exists():
                    (path / STEPS).mkdir(exist_ok=True)
                    vocabulary.write(path / VOCABULARY)
                    # Last: a folder with config.json is a run, one without is completed by the next attempt.
                    write_whole(path / CONFIG, canonical_json(config))
                changes = _drift(path, config, vocabulary, may_differ)
                removed = remove_uncommitted(path)
                remove_unfinished(path)
                if card is not None or not (path / CARD).exists():
                    write_whole(path / CARD, _model_card(config, card or {}))
            except BaseException as fault:
                lock.close()
                if isinstance(fault, Exception):
                    all_processes(False)
                if isinstance(fault, OSError) and not isinstance(fault, NoLocksError):
                    raise RunDirectoryError(
                        f"a run folder must be a folder with room that this process may write to: got {path} "
                        f"({fault.strerror}); choose another one, or change its rights"
                    ) from fault
                raise
        if not all_processes(True):
            raise RunDirectoryError(
                f"process 0 opens the run folder for all processes: got an error there for {path}; see what it says"
            )
        if jax.process_index() > 0:
            changes = _drift(path, config, vocabulary, may_differ)
        return cls(path, read_config(path), changes, removed, lock)

    @property
    def metrics_path(self) -> Path:
        """JSON lines, each with a "step"."""
        return self.path / METRICS

    def forget_metrics_after(self, step: int) -> None:
        """Drop the metrics after `step`, and a line that a crash cut: the resumed run writes them again."""
        if jax.process_index() or not self.metrics_path.exists():
            return
        kept = []
        for line in self.metrics_path.read_text(encoding="utf-8").splitlines(keepends=True):
            try:
                if line.endswith("\n") and json.loads(line)["step"] <= step:
                    kept.append(line)
            except ValueError:
                continue
        write_whole(self.metrics_path, "".join(kept))

    def close(self) -> None:
        """Let another process write."""
        self._lock.close()

    def __enter__(self) -> "RunDirectory":
        """Return the run itself."""
        return self

    def __exit__(self, *_) -> None:
        """Close the run."""
        self.close()


def read_config(path: str | Path) -> dict:
    """The configuration of a run folder. Raises RunDirectoryError where there is none."""
    try:
        return json.loads((Path(path) / CONFIG).read_bytes())
    except (OSError, ValueError) as fault:
        raise RunDirectoryError(
            f"a run folder must hold a readable {CONFIG}: got {path} ({fault}); give the folder that the "
            "training printed"
        ) from fault


def _flatten(data: Mapping, prefix: str = "") -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in data.items():
        nested = isinstance(value, Mapping) and value
        flat |= _flatten(value, f"{prefix}{key}.") if nested else {f"{prefix}{key}": value}
    return flat


def _as_json(config: dict) -> dict:
    """The configuration as JSON gives it back: tuples are lists."""
    faults = []
    for key, value in _flatten(config).items():
        try:
            json.dumps(value, allow_nan=False)
        except (TypeError, ValueError):
            faults.append(f"{key} = {value!r}")
    if faults:
        raise RunDirectoryError(
            f"a configuration must be JSON data with finite numbers: got {'; '.join(faults)}; use text, "
            "numbers, lists and dicts"
        )
    return json.loads(json.dumps(config))


def _drift(path: Path, config: dict, vocabulary: Vocabulary, may_differ: Collection[str]) -> dict:
    """The permitted differences from the stored configuration; the others raise, all of them listed."""
    stored, given = _flatten(read_config(path)), _flatten(config)
    changes, lines = {}, []
    for key in sorted(stored.keys() | given.keys()):
        if key in stored and key in given and stored[key] == given[key]:
            continue
        if any(key == name or key.startswith(f"{name}.") for name in may_differ):
            changes[key] = given.get(key)
            continue
        sides = (("−", stored), ("+", given))
        lines += [f"  {sign} {key} = {json.dumps(side[key])}" for sign, side in sides if key in side]
    try:
        ours = Vocabulary.read(path / VOCABULARY)
    except ValueError as fault:
        raise RunDirectoryError(
            f"a run folder must hold a readable {VOCABULARY}: got {path} ({fault}); put the file back from a copy"
        ) from fault
    lines += _vocabulary_differences(ours, vocabulary)
    if lines:
        raise RunDirectoryError(
            f"a run goes on with the configuration and vocabulary it was started with: got others for {path} "
            f"(− of its {CONFIG}, + given)\n" + "\n".join(lines) + "\nuse those of the run, or a new folder"
        )
    return changes


def _vocabulary_differences(ours: Vocabulary, given: Vocabulary, shown: int = 10) -> list[str]:
    if ours.hash == given.hash:
        return []

    def rows(vocabulary: Vocabulary) -> list[str]:
        counts = zip(vocabulary.codes, vocabulary.patients.tolist(), strict=True)
        return [f"id {FIRST_CODE + i} = {code}, {count} patients" for i, (code, count) in enumerate(counts)]

    different = [pair for pair in zip_longest(rows(ours), rows(given)) if pair[0] != pair[1]]
    lines = [f"  {VOCABULARY}: {len(different)} ids differ; {ours.size} ids in the run, {given.size} given"]
    for pair in different[:shown]:
        lines += [f"  {sign} {row}" for sign, row in zip("−+", pair, strict=True) if row is not None]
    return lines + [f"  … and {len(different) - shown} more"] * (len(different) > shown)


def _check_own(path: Path) -> None:
    """Refuse a folder that is not a run."""
    if path.exists() and not (path / CONFIG).exists():
        # A creation that was killed half-way may have left some of its files; nothing else may lie here.
        names = sorted(p.name for p in path.iterdir())
        foreign = [name for name in names if meant_for(name) not in (LOCK, STEPS, CONFIG, VOCABULARY)]
        if foreign or any((path / STEPS).glob("*")):
            raise RunDirectoryError(
                f"a run folder must be new, empty or a run: got {path} without {CONFIG} and with "
                f"{', '.join(foreign[:5]) or STEPS}; choose another folder"
            )


def _model_card(config: dict, facts: Mapping[str, object]) -> bytes:
    """What was trained, on what, with which versions, for people."""
    packages = {"Python": platform.python_version(), "medbert_jax": __version__, **versions()}
    task = {"pretrain": "pretrained on patient histories", "finetune": "fine-tuned on a disease cohort"}
    rows = {**facts, **{f"model.{key}": value for key, value in config.get("model", {}).items()}}
    rows["versions"] = ", ".join(f"{name} {number}" for name, number in packages.items())
    table = "\n".join(f"| {key} | {value} |" for key, value in rows.items())
    return f"""# Med-BERT, {task[config["kind"]]}

| | |
|---|---|
{table}

The whole configuration is in `config.json`, the codes are in `vocabulary.tsv`, the checkpoints in `steps/`,
each with checksums that are verified when it is loaded.

```python
import medbert_jax
model = medbert_jax.load_pretrained("path/to/this/folder")
```

This is a research model, not a medical device. What it says about patients of another population is unknown
until it is measured there.
""".encode()
