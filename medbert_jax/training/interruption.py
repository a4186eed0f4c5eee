"""Being asked to stop: a run saves after the dispatch that is running, and ends with a code of its own."""

import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

EXIT_CODE = 75
"""What a run that was interrupted and saved ends with (EX_TEMPFAIL): the same command goes on with it."""


class Interrupted(Exception):
    """The run was asked to stop, and has saved where it was."""


class Interruption:
    """Notices SIGTERM within its `with` block; the handler before it comes back at the end.

    Several processes agree on the step after which they stop, by JAX's own preemption service, which notices the signal
    in any of them.
    """

    def __init__(self) -> None:
        self.stopping, self._asked, self._questions = False, False, 0
        """Whether the last answer was that the run is to stop."""
        self._before: Callable[[int, FrameType | None], object] | int | None = None

    def __enter__(self) -> "Interruption":
        """Listen, in the main thread; elsewhere Python cannot."""
        if jax.process_count() == 1 and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_) -> None:
        """Listen no more."""
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def asked(self) -> bool:
        """Whether the run is to stop; the same answer in every process, which all ask equally often."""
        if jax.process_count() > 1 and not self._asked:
            # The service waits for a number that all come to: questions are counted one by one, steps are not.
            self._questions += 1
            self._asked = multihost_utils.reached_preemption_sync_point(self._questions)
        self.stopping = self._asked
        return self.stopping
