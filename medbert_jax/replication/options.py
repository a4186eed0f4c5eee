"""What the user may type after `medbert tables`; below a field stands its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from annotated_types import Ge, Interval
from tyro.conf import Positional

from medbert_jax.checked_fields import check_fields


@dataclass(frozen=True)
class TablesOptions:
    """The paper's Table 4, Fig. 4 and claims beside what the runs of a results folder say, as markdown and SVG."""

    results: Positional[Path]
    """folder of results, with predictions/ and test_patients/; or what --keep has kept of one."""
    out: Positional[Path]
    """folder of results.md, figures and runs.csv; or a FILE.md, in which what stands between two marked lines is made
    anew."""
    experiments: tuple[str, ...] = ()
    """experiments whose rows stand beside the paper's, taken as one; that with most of its rows."""
    cohorts: tuple[Path, ...] = ()
    """directories of cohort datasets whose test patients are filed with the results, where they are not yet."""
    keep: Path | None = None
    """folder for a small copy of the results, of which the same tables can be made: patient-level data."""
    draws: Annotated[int, Ge(100)] = 2000
    """of the bootstrap."""
    seed: Annotated[int, Interval(ge=0, lt=2**32)] = 0
    """of the bootstrap."""
    cache_dir: str = ""
    """folder where the token store of a dataset that cannot be written, and has none, is kept."""

    def __post_init__(self):
        """Check every field; all faults are in one error."""
        check_fields(self)
