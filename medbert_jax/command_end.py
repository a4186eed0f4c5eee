"""How a command ends: its exit code, and one sentence in place of a traceback.

0 done; 1 what `medbert validate` found; 2 wrong input; 75 a training that was asked to stop, which the same command
goes on with; 130 Ctrl-C, 141 nobody reads what is printed, 143 SIGTERM, as of a shell. Loads nothing heavy: whoever
presses Ctrl-C while the rest is imported is told too.
"""

import contextlib
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Generator
from types import FrameType

RESUMES = 75
"""What a run that was interrupted and saved ends with (EX_TEMPFAIL): the same command goes on with it."""
_WOKEN, _REACHED, _CLEARED = 0.1, 1.4, 8.0
"""Seconds: until the main thread is woken for a signal, must have obeyed it, and has cleared away after that."""


def listen(program: str, *, resumes: bool = False) -> None:
    """From now on Ctrl-C (SIGINT) and SIGTERM end the process, as SystemExit with a sentence; those ignored stay so.

    One that is within compiled code, where no exception can be raised, or that hangs while it clears away, is ended by
    a thread: what is written is whole or not there at all. For the main thread of a command, whose name is `program`;
    `resumes` is of one that goes on where it stopped, and says so by its exit code.
    """
    again = "goes on from what was saved before" if resumes else "begins again"
    ends = {
        signal.SIGINT: (130, f"\n{program}: ended at once by Ctrl-C; the same command {again}\n"),
        signal.SIGTERM: (RESUMES if resumes else 143, f"{program}: ended by SIGTERM; the same command {again}\n"),
    }
    reached, told = threading.Event(), threading.Lock()

    def tell(number: int) -> None:
        if told.acquire(blocking=False):
            with contextlib.suppress(OSError):  # past Python's buffers, which a signal may have come amidst of
                os.write(2, ends[signal.Signals(number)][1].encode())

    def handle(number: int, frame: FrameType | None) -> None:
        if not reached.is_set():  # `timeout` sends a second one while the first is obeyed
            reached.set()
            tell(number)
            if _importing(frame):
                os._exit(ends[signal.Signals(number)][0])
            raise SystemExit(ends[signal.Signals(number)][0])

    def watch() -> None:
        while (number := os.read(woken, 1)[0]) not in ends or signal.getsignal(number) is not handle:
            pass  # of others, and of a training, which listens by itself
        if not reached.wait(
            _WOKEN
        ):  # the main thread waits: another has got it, or polars lets waits go on (SA_RESTART)
            signal.siginterrupt(number, True)
            signal.pthread_kill(main, number)
        if reached.wait(_REACHED):
            time.sleep(_CLEARED)
        tell(number)
        os._exit(ends[signal.Signals(number)][0])

    main = threading.get_ident()
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    for number in ends:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, handle)
    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def told(program: str, *, again: str) -> Generator[None]:
    """What a command does, within: wrong input, a damaged folder and a diverged run end with their message and code 2.

    `again` says what the same command does after Ctrl-C.
    """
    from medbert_jax.printed_tables import take_any_terminal

    take_any_terminal()
    try:
        try:
            yield
        finally:
            if sys.stdout is not None:
                sys.stdout.flush()
    except KeyboardInterrupt:
        print(f"{program}: ended at once by Ctrl-C; {again}", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if isinstance(error, BrokenPipeError) and (unread := _unread()):
            for stream in unread:  # or what is left in their buffers is complained of at the very end
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            sys.exit(128 + signal.SIGPIPE)
        kind = type(error).__name__  # whose module would load JAX
        if kind != "Interrupted" and kind != "CheckpointError" and not isinstance(error, _SAY_WHAT_TO_DO):
            raise
        print(f"{program}: {error}", file=sys.stderr)
        sys.exit(RESUMES if kind == "Interrupted" else 2)


def _importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: compiled ones that are made by half crash when Python clears away."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


_SAY_WHAT_TO_DO = (ValueError, OSError, FloatingPointError)


def _unread() -> list:
    """Those of stdout and stderr that are pipes whose reader is gone."""
    found = []
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):  # a notebook's, and one that is closed
            asked = select.poll()
            asked.register(stream.fileno(), 0)
            if any(event & select.POLLERR for _, event in asked.poll(0)):
                found.append(stream)
    return found
