"""Of what a worker process died: its exit code or signal, and whether the system had no more memory."""

import contextlib
import functools
import re
import signal
from multiprocessing.context import SpawnContext
from multiprocessing.synchronize import Event
from pathlib import Path

_CGROUPS = Path("/sys/fs/cgroup")
_MEMBERSHIP = Path("/proc/self/cgroup")


class WatchedContext(SpawnContext):
    """Keeps the processes that it starts, for what the pool does not tell: of what one died."""

    def __init__(self):
        super().__init__()
        self._started = []
        self._out_of_memory = out_of_memory()

    @functools.cached_property
    def ready(self) -> Event:
        """Whether a process has come so far as to work."""
        return self.Event()

    def Process(self, *args, **named):  # ty: ignore[incompatible-attribute-override]
        """As the library's, and kept."""
        self._started.append(super().Process(*args, **named))
        return self._started[-1]

    def end(self) -> None:
        """End all processes, whatever they are at; return when they are gone."""
        started = [one for one in self._started if one.pid is not None]
        for one in started:
            one.kill()  # which they cannot put off; what they write is whole or not there
        for one in started:
            one.join()

    def fault(self, workers: int) -> BaseException:
        """What to raise for a pool that broke."""
        codes = [one.exitcode for one in self._started]
        # Of the others the pool gets rid by SIGTERM.
        code = next((code for code in codes if code not in (None, 0, -signal.SIGTERM)), codes[0])
        if code == -signal.SIGINT:
            return KeyboardInterrupt()
        if code == -signal.SIGKILL:
            return ChildProcessError(self._of_a_kill(workers))
        if not self.ready.is_set():
            return ChildProcessError(
                'a script must start workers under `if __name__ == "__main__":`, for each of them runs it again, down'
                f" to there: got one that ended with {_told(code)} while it did; put the calls under that line, or give"
                " workers=1"
            )
        return ChildProcessError(
            f"workers must live until their work is done: got one that ended with {_told(code)}; what it said stands"
            " above: mend that, or give the same command again with one worker to see more"
        )

    def _of_a_kill(self, workers: int) -> str:
        """SIGKILL says not by whom; the system counts those that it killed for want of memory."""
        before, now = self._out_of_memory, out_of_memory()
        fewer = "fewer workers, or write the EHR tables with more shards"
        if before is None or now is None:
            return (
                "workers must live until their work is done: got one that was killed (signal 9), often for want of"
                f" memory among {workers} workers; give the same command again, if need be with {fewer}"
            )
        if now > before:
            return (
                f"each of {workers} workers must have the memory for one shard: got one that the system killed for want"
                f" of it; give the same command again with {fewer}"
            )
        return (
            "workers must live until their work is done: got one that was killed (signal 9), by a person or a program,"
            " for the system counts none that it killed for want of memory; give the same command again"
        )


def out_of_memory() -> int | None:
    """How many processes of this one's control group the system has killed for want of memory; None: it does not say.

    Of cgroups version 2 `memory.events`, of version 1 `memory.oom_control`; a container sees its own as the root.
    """
    with contextlib.suppress(OSError, ValueError):
        for line in _MEMBERSHIP.read_text(encoding="utf-8").splitlines():
            _, controllers, path = line.split(":", 2)
            if controllers and "memory" not in controllers.split(","):
                continue
            mount = _CGROUPS / "memory" if controllers else _CGROUPS
            name = "memory.oom_control" if controllers else "memory.events"
            for folder in (mount / path.lstrip("/"), mount):
                with contextlib.suppress(OSError):
                    events = (folder / name).read_text(encoding="utf-8")
                    if said := re.search(r"^oom_kill (\d+)$", events, re.MULTILINE):
                        return int(said[1])
    return None


def _told(code: int | None) -> str:
    """An exit code, with the name of the signal where it was one."""
    if code is None or code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):  # one that has no name
        return f"exit code {code} ({signal.Signals(-code).name})"
    return f"exit code {code}"
