"""Being asked to stop: a run saves after the dispatch that is running, and ends with a code of its own."""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType

import jax
from jax.experimental import multihost_utils

_NOTICED = b"\nasked to stop: this ends where it can be gone on from; Ctrl-C again ends it at once\n"


class Interrupted(Exception):
    """The run was asked to stop, and has saved where it was."""


class Interruption:
    """Notices SIGTERM and Ctrl-C (SIGINT) within its `with` block; the handlers before it come back at the end.

    A second Ctrl-C raises KeyboardInterrupt. Several processes agree on the step after which they stop, by JAX's own
    preemption service, which notices SIGTERM in any of them.
    """

    def __init__(self) -> None:
        self.stopping, self._asked, self._questions = False, False, 0
        """Whether the last answer was that the run is to stop."""
        self._pressed = False
        self._before = contextlib.ExitStack()

    def __enter__(self) -> "Interruption":
        """Listen, in the main thread; elsewhere Python cannot."""
        if threading.current_thread() is threading.main_thread():
            if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:  # as of a job in the background
                self._listen(signal.SIGINT, self._notice_key)
            if jax.process_count() == 1:
                self._listen(signal.SIGTERM, self._notice)
        return self

    def __exit__(self, *_) -> None:
        """Listen no more."""
        self._before.close()

    def _listen(self, number: signal.Signals, handler: Callable[[int, FrameType | None], None]) -> None:
        before = signal.signal(number, handler)
        if before is not None:  # set by something that is not Python, and cannot be put back
            self._before.callback(signal.signal, number, before)

    def _notice(self, number: int, frame: FrameType | None) -> None:
        self._asked = True

    def _notice_key(self, number: int, frame: FrameType | None) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True
        with contextlib.suppress(OSError):  # written past Python's buffers, which a signal may have come amidst of
            os.write(2, _NOTICED)
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)  # for the service
        else:
            self._asked = True

    def asked(self) -> bool:
        """Whether the run is to stop; the same answer in every process, which all ask equally often."""
        if jax.process_count() > 1 and not self._asked:
            # The service waits for a number that all come to: questions are counted one by one, steps are not.
            self._questions += 1
            self._asked = multihost_utils.reached_preemption_sync_point(self._questions)
        self.stopping = self._asked
        return self.stopping

    def end_here(self, results: str) -> None:
        """Raise Interrupted if the run is to stop: of runs whose `results` are filed, each when it is done."""
        if self.asked():
            raise Interrupted(f"asked to stop: what is done is in {results}; the same command does the rest")
