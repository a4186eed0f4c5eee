"""What the user may type after `medbert study`; what stands below a field is its help."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class StudyOptions:
    """A whole study from a plan: tables, datasets, pretrainings, code vectors, cohorts, tuning and grids of runs.

    What is done is skipped, so the same command goes on after any end; several processes may share a study.
    """

    plan: Positional[str]
    """preset that defines a StudyPlan: study_cpu, study_paper, or the path of one."""
    out: Positional[Path]
    """folder of tables, datasets and checkpoints."""
    results: Path | None = None
    """folder of the runs, one file each, and of their predictions; OUT/results."""
    data: Path | None = None
    """folder of the source that the plan ingests, where it does."""
    dry_run: bool = False
    """make nothing: print every stage and run with its state, and how long it will take."""
    only: tuple[str, ...] = ()
    """kinds of stages (tables, datasets, pretrainings, vectors, cohorts, tunings, blocks), stages as the dry run names
    them, or blocks."""
    part: Annotated[int, Ge(0)] = 0
    """number of this process, from 0, where several share the study."""
    parts: Annotated[int, Ge(1)] = 1
    """how many processes share it; the runs of every block are divided among so many."""
    workers: Annotated[int, Ge(0)] = 0
    """processes that make tables and datasets; 0: one per core."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self, also=self._disagreements())

    def _disagreements(self) -> Iterator[str]:
        if self.part >= self.parts:
            yield f"part must be one of 0 … {self.parts - 1}: got {self.part}; count the parts from 0"
