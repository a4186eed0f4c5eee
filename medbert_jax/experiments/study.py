"""A study, made: every stage once, in the plan's order, by one process or by several that share its folder.

A stage is made under a lock of its own, so processes take what no other is making and whose needs are done; the runs of
a block are divided among them by number, as in any grid. What is done is skipped, so any process may end at any moment.
"""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from medbert_jax.disk.lock import locked
from medbert_jax.experiments.grid import GridConfig, Run
from medbert_jax.experiments.study_plan import Block, StudyPlan
from medbert_jax.experiments.study_stages import (
    KINDS,
    VERSION,
    Receipt,
    Stage,
    asked_for,
    found_at,
    place_of,
    receipt_path,
    result_of,
    stages_of,
    write_receipt,
)
from medbert_jax.experiments.tuning import joined_tuning
from medbert_jax.training.progress import say

Make = Callable[[Any, "Study"], Path]
"""Makes the result of an item, and returns its path below the study's folder."""


class _BusyError(Exception):
    """Another process is making the stage."""


@dataclass(frozen=True)
class Study:
    """A plan and its folders."""

    plan: StudyPlan
    out: Path
    """Tables, datasets, checkpoints."""
    results: Path
    """One file for each run, and its predictions."""
    part: int = 0
    parts: int = 1
    _done: dict[str, tuple[Path, str]] = field(default_factory=dict)

    def stages(self) -> list[Stage]:
        """All stages in their order."""
        return stages_of(self.plan)

    def done(self, stage: Stage) -> bool:
        """Whether the result of a stage that is no block is there, and that of all it needs; each is compared once."""
        if stage.key in self._done:
            return True
        if any(not self.done(need) for need in self.needs(stage)):
            return False
        result = result_of(self.out, stage, self.plan, self._made_from(stage))
        if result is not None:
            self._done[stage.key] = result
        return result is not None

    def needs(self, stage: Stage) -> list[Stage]:
        """The stages that one needs."""
        by_key = {one.key: one for one in self.stages()}
        return [by_key[key] for key in stage.needs]

    def path(self, kind: str, name: str) -> Path:
        """Of the result of a done stage."""
        return self._done[f"{kind}/{name}"][0]

    def grid(self, block: Block, *, whole: bool = False) -> GridConfig:
        """The grid of a block whose needs are done: of this part, or whole."""
        finetune = replace(
            block.grid.finetune,
            experiment=block.experiment or block.name,
            checkpoint=str(self.path("pretrainings", block.pretraining)),
            vectors=str(self.path("vectors", block.vectors)) if block.vectors else "",
            results=str(self.results),
        )
        shared = {} if whole else {"part": self.part, "parts": self.parts}
        return replace(
            block.grid,
            datasets=tuple(str(self.path("cohorts", name)) for name in block.cohorts),
            finetune=finetune,
            tuning=self._tuning(block),
            **shared,
        )

    def runs(self, block: Block) -> Iterator[tuple[str, Run]]:
        """The runs of a block whose needs are done, each with the plan's name of its cohort."""
        names = {str(self.path("cohorts", name)): name for name in block.cohorts}
        for run in self.grid(block, whole=True).runs():
            yield names[run.dataset], run

    def make(self, stage: Stage, makers: Mapping[str, Make]) -> None:
        """Make a stage whose needs are done; _BusyError where another process is at it."""
        if stage.kind == "blocks":
            makers["blocks"](stage.item, self)
            return
        lock = receipt_path(self.out, stage).with_suffix(".lock")
        with locked(lock, refusal=_BusyError(), stays=False):
            if self.done(stage):  # by another process, meanwhile
                return
            say(f"{stage.key}: begins")
            began, resumed = time.monotonic(), place_of(self.out, stage.kind, stage.item.name).exists()
            path = makers[stage.kind](stage.item, self)
            found = found_at(stage.kind, path)
            assert found is not None  # it has just been made
            receipt: Receipt = {
                "version": VERSION,
                "asked": asked_for(stage, self.plan, self._made_from(stage)),
                "path": path.relative_to(self.out).as_posix(),
                "found": found,
                "seconds": 0.0 if resumed else time.monotonic() - began,
            }
            write_receipt(self.out, stage, receipt)
            self._done[stage.key] = path, found
            say(f"{stage.key}: done in {time.monotonic() - began:,.0f} s")

    def _made_from(self, stage: Stage) -> dict[str, str]:
        return {key: self._done[key][1] for key in stage.needs}

    def _tuning(self, block: Block) -> str:
        if len(block.tunings) < 2:
            return "".join(str(self.path("tunings", name)) for name in block.tunings)
        return str(
            joined_tuning(
                [self.path("tunings", name) for name in block.tunings],
                self.out / "tunings" / f"joined-{'-'.join(block.tunings)}.json",
            )
        )


def run_study(study: Study, makers: Mapping[str, Make], *, only: Collection[str] = ()) -> None:
    """Make what is not done: all stages, or those of `only`, which are kinds of stages, keys, or names of blocks.

    `makers` has one for each kind. A stage that another process is making is left to it, and waited for when nothing
    else can be done. ValueError where `only` is none, or leaves out what it needs and is not done. Errors and
    Interrupted as of what is made.
    """
    stages = wanted(study, only)
    left = [stage for stage in stages if stage.kind == "blocks" or not study.done(stage)]
    for stage in stages:
        if stage not in left:
            say(f"{stage.key}: done before")
    chosen = {stage.key for stage in stages}
    while left:
        busy = None
        for stage in left:
            if missing := [need for need in study.needs(stage) if not study.done(need)]:
                if strangers := [need.key for need in missing if need.key not in chosen]:
                    raise ValueError(
                        f"a stage is made when what it needs is done: got {stage.key} without {', '.join(strangers)}; "
                        "take these too, or leave --only out"
                    )
                busy = busy or missing[0]
                continue
            try:
                study.make(stage, makers)
            except _BusyError:
                busy = stage
                continue
            left.remove(stage)
            break
        else:
            assert busy is not None  # in the order of the stages the first one left has all that it needs
            _wait_for(study, busy)
            left = [stage for stage in left if stage.kind == "blocks" or not study.done(stage)]


def wanted(study: Study, only: Collection[str]) -> list[Stage]:
    """The stages that `only` names; all where it names none. ValueError for a name that is none."""
    stages = study.stages()
    known = {*KINDS, *(stage.key for stage in stages), *(block.name for block in study.plan.blocks)}
    if strange := [name for name in only if name not in known]:
        raise ValueError(
            f"--only takes kinds of stages, stages and blocks: got {', '.join(strange)}; give some of "
            f"{', '.join(KINDS)}, or what --dry-run prints"
        )

    def names(stage: Stage) -> set[str]:
        return {stage.kind, stage.key, *([stage.item.name] if stage.kind == "blocks" else [])}

    return [stage for stage in stages if not only or names(stage) & {*only}]


def _wait_for(study: Study, stage: Stage) -> None:
    """Wait until no other process is making a stage."""
    lock = receipt_path(study.out, stage).with_suffix(".lock")
    with locked(lock, stays=False, waiting=lambda: say(f"{stage.key}: another process is making it; waiting")):
        pass
