"""Metrics as TensorBoard files, by the extra `tensorboard`."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path

import jax


def check_extra(wanted: bool) -> None:
    """Raise ValueError where files are wanted and the extra that writes them is not installed."""
    if wanted and find_spec("tensorboardX") is None:
        raise ValueError(
            "TensorBoard files need tensorboardX: got none installed; pip install 'medbert-jax[tensorboard]', or leave"
            " out --tensorboard"
        )


class TensorBoard:
    """Writes scalars KIND/METRIC into a folder, by the first of several processes, until the `with` block ends.

    Of a run that went on, each part writes a file of its own; where steps are made twice the later file counts.
    """

    def __init__(self, folder: Path):
        from tensorboardX import SummaryWriter

        self._writer = SummaryWriter(str(folder)) if jax.process_index() == 0 else None

    def __enter__(self) -> "TensorBoard":
        """The files are open."""
        return self

    def __exit__(self, *_) -> None:
        """Close the files."""
        if self._writer:
            self._writer.close()

    def record(self, step: int, metrics: Mapping[str, float], kind: str) -> None:
        """Write the metrics after `step` steps."""
        if self._writer:
            for name, value in metrics.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)
