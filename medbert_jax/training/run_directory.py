"""The folder of one training run: what was trained, on which codes, its checkpoints and its metrics.

config.json and vocabulary.tsv are written once and never change; README.md is a model card for people and is
never hashed; steps/ belongs to `checkpointing`; one process at a time may write.
"""

import contextlib
import json
import platform
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import Path
from typing import Literal

import jax

from medbert_jax import __version__
from medbert_jax.data.vocabulary import FIRST_CODE, Vocabulary
from medbert_jax.disk.lock import NoLocksError, locked
from medbert_jax.disk.whole_files import canonical_json, meant_for, remove_unfinished, write_whole
from medbert_jax.training.manifest import STEPS, remove_uncommitted
from medbert_jax.training.processes import all_processes
from medbert_jax.training.progress import metrics_row, say, versions
from medbert_jax.training.stored_config import (
    CONFIG,
    CONFIG_VERSION,
    VOCABULARY,
    RunDirectoryError,
    as_json,
    defaults_of,
    flatten,
    read_config,
    stored_config,
    with_defaults,
)

CARD, METRICS, LOCK = "README.md", "metrics.jsonl", "lock"
DAMAGED_METRICS = "metrics.damaged.jsonl"


@dataclass(eq=False)
class RunDirectory:
    """One run folder, open for writing by this process until `close` or the end of its `with` block."""

    path: Path
    config: dict
    """The configuration the run was created with, as `read_config` gives it."""
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
        config = {**as_json(config), "kind": kind, "version": CONFIG_VERSION}
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
                changes = _drift(path, config, vocabulary, may_differ, tell=say)
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
        """Drop the metrics after `step`: the resumed run writes them again.

        Lines that are damaged, or that a crash cut, are told and set aside: nothing that is trained depends on them.
        """
        if jax.process_index() or not self.metrics_path.exists():
            return
        kept, damaged = [], {}
        for number, line in enumerate(self.metrics_path.read_bytes().split(b"\n"), start=1):
            row = metrics_row(line)
            if row is None and line:
                damaged[number] = line + b"\n"
            elif row and row["step"] <= step:
                kept.append(line + b"\n")
        if damaged:
            aside = self.path / DAMAGED_METRICS
            write_whole(aside, (aside.read_bytes() if aside.exists() else b"") + b"".join(damaged.values()))
            say(
                f"a line of {METRICS} must be one JSON record: got another in line {', '.join(map(str, damaged))} of "
                f"{self.metrics_path}, cut by a crash or damaged; moved to {DAMAGED_METRICS}, and the run goes on "
                "without"
            )
        write_whole(self.metrics_path, b"".join(kept))

    def note_versions(self, step: int, before: Mapping[str, str]) -> None:
        """Say, and add to the metrics, which versions are others than those that `step` was saved with."""
        now = versions()
        changes = {name: [before[name], now.get(name)] for name in before if now.get(name) != before[name]}
        if jax.process_index() or not changes:
            return
        row = json.dumps({"kind": "versions", "step": step, **changes}) + "\n"
        earlier = self.metrics_path.read_bytes() if self.metrics_path.exists() else b""
        write_whole(self.metrics_path, earlier + row.encode())
        told = ", ".join(f"{name} {old} → {new or 'none'}" for name, (old, new) in changes.items())
        differs = ": dropout differs from here on" if "dropout" in changes else ""
        say(
            f"bit for bit, a run goes on only with the packages it was saved with: got {told} after step {step:,}"
            f"{differs}; noted in {METRICS}, install the earlier ones where every bit matters"
        )

    def close(self) -> None:
        """Let another process write."""
        self._lock.close()

    def __enter__(self) -> "RunDirectory":
        """Return the run itself."""
        return self

    def __exit__(self, *_) -> None:
        """Close the run."""
        self.close()


def _drift(
    path: Path,
    config: dict,
    vocabulary: Vocabulary,
    may_differ: Collection[str],
    tell: Callable[[str], object] = lambda line: None,
) -> dict:
    """The permitted differences from the stored configuration; the others raise, all of them listed."""
    stored, given = stored_config(path), config
    if stored.get("kind") == config["kind"]:
        stored, given = read_config(path, tell), with_defaults(config)
    facts = {"version", *(given.keys() - defaults_of(given).keys())}  # of the data, say; the others are its fields
    # An older version is read as this one.
    stored, given = flatten({**stored, "version": CONFIG_VERSION}), flatten(given)
    changes, lines, removed = {}, [], []
    for key in sorted(stored.keys() | given.keys()):
        if key in stored and key in given and stored[key] == given[key]:
            continue
        if any(key == name or key.startswith(f"{name}.") for name in may_differ):
            changes[key] = given.get(key)
            continue
        if key not in given and key.partition(".")[0] not in facts:
            removed.append(f"{key} = {json.dumps(stored[key])}")
        sides = (("−", stored), ("+", given))
        lines += [f"  {sign} {key} = {json.dumps(side[key])}" for sign, side in sides if key in side]
    if removed:
        raise RunDirectoryError(
            f"a run goes on where every field of its {CONFIG} is known: got {', '.join(removed)} in {path}, known no "
            "more; go on with the version of medbert_jax that its README.md names, or start a new run from its "
            "parameters (init_from)"
        )
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
    packages = {"Python": platform.python_version(), **versions()}
    task = {"pretrain": "pretrained on patient histories", "finetune": "fine-tuned on a disease cohort"}
    rows = {**facts, **{f"model.{key}": value for key, value in config.get("model", {}).items()}}
    rows["written by"] = f"medbert_jax {__version__}, configuration version {config['version']}"
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
