"""A fine-tuning that is under way: where it is kept, so that the same command goes on with it, bit for bit.

It is kept in a run folder beside the results, under the id that they will have, and removed when they are filed: what
a fine-tuned model is kept in (`FinetuneConfig.run`) holds the chosen parameters alone.
"""

import contextlib
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import jax
import numpy as np
from jax.sharding import NamedSharding

from medbert_jax.training.checkpointing import latest_good_step, restore_step, save_step
from medbert_jax.training.early_stopping import KeptStopping
from medbert_jax.training.progress import say, versions, versions_of
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.sharding import put_global, with_shardings

FOLDER = "unfinished"
SECONDS = 60.0
"""Between two saves that nobody asked for: a fine-tuning of less is never written."""


def unfinished_folder(results: str | Path, run_id: str) -> Path:
    """Where the run of this id is kept while it is under way."""
    return Path(results) / FOLDER / run_id


def remove_unfinished_folder(folder: Path) -> None:
    """Of a run whose results are filed; the folder of all such folders too, when it was the last."""
    if folder.exists():
        shutil.rmtree(folder)
        with contextlib.suppress(OSError):  # there are others
            folder.parent.rmdir()


@dataclass(eq=False)
class Unfinished:
    """Saves and restores one run; `directory` is open."""

    directory: RunDirectory
    _saved: int = 0
    _since: float = field(default_factory=time.monotonic)

    def restore(self, state: dict, stopping: KeptStopping, everywhere: NamedSharding) -> tuple[int, dict, list]:
        """(step, state, metrics that no line has told yet) of the newest intact save, or those of the beginning.

        `stopping` becomes what it was.
        """
        path = self.directory.path
        step = latest_good_step(path, warn=say) or 0
        self.directory.forget_metrics_after(step)
        if not step:
            return 0, state, []
        tree = {"params": state["params"], "opt_state": state["opt_state"]}
        target = with_shardings(tree, jax.tree.map(lambda _: everywhere, tree))
        best = {"optimizer": target["opt_state"], "best": target["params"]}
        stored = restore_step(path, step, target["params"], best)
        self.directory.note_versions(step, versions_of(stored.progress))
        self._saved = step
        kept, told = cast(dict, stored.opt_state), stored.progress
        stopping.remember(told["stopping"], kept["best"])
        number = put_global(np.int32(step), everywhere)
        say(f"resumed from step {step:,}")
        return step, state | {"params": stored.params, "opt_state": kept["optimizer"], "step": number}, told["window"]

    def due(self) -> bool:
        """Whether so much has been done since the last save that another one is worth its time."""
        return time.monotonic() - self._since >= SECONDS

    def keep(self, step: int, state: dict, stopping: KeptStopping, window: list) -> None:
        """Keep the state after `step` steps, unless it is kept already; CheckpointError as `save_step`."""
        if step == self._saved:
            return
        kept = {"optimizer": state["opt_state"], "best": stopping.best_params or state["params"]}
        progress = {"step": step, "window": window, "versions": versions(), "stopping": stopping.told()}
        save_step(self.directory, step, params=state["params"], opt_state=kept, progress=progress)
        self._saved, self._since = step, time.monotonic()
