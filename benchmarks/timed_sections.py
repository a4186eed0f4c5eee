"""Sections of a benchmark, each a process with its time: one that fails, or takes too long, stops no other.

A section prints a JSON object a line: {"figures": {name: what was found}}, or {"left_out": why}; what it says otherwise
goes to standard error. Every line is in the file of all sections as soon as it is read. What one section leaves of its
time the next ones may take. Nothing that computes is imported here: the device is the sections' own.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from medbert_jax.disk.whole_files import write_json
from medbert_jax.printed_tables import Table

LEAST = 0.25
"""Share of its time that a section needs to be begun."""
FINE = ("done", "left out")
LAST_LINES = 40
"""Of standard error that are kept of a section that failed."""


@dataclass(frozen=True)
class Section:
    """One process."""

    command: Sequence[str]
    seconds: float
    """Its time."""


def run_sections(sections: Mapping[str, Section], out: Path, **facts: object) -> dict:
    """Run the sections in order; returns what is then in `out`: the facts, and of every section how it ended.

    "state" is done, left out (the section says why), failed, out of time, or not begun. The file is rewritten whole
    with every figure.
    """
    began = time.monotonic()
    record: dict = {**facts, "seconds": 0.0, "sections": {}}
    out.parent.mkdir(parents=True, exist_ok=True)
    deadline = 0.0

    def write() -> None:
        record["seconds"] = time.monotonic() - began
        write_json(out, record)

    for name, section in sections.items():
        deadline += section.seconds
        left = deadline - (time.monotonic() - began)
        found = record["sections"][name] = {"state": "running", "figures": {}}
        write()
        if left < LEAST * section.seconds:
            found |= {"state": "not begun", "why": f"{max(0.0, left):.0f} s were left of {section.seconds:.0f}"}
        else:
            print(f"{name}: at most {left:.0f} s", file=sys.stderr, flush=True)
            _run(section.command, left, found, write)
        print(f"{name}: {found['state']}", file=sys.stderr, flush=True)
        write()
    return record


def all_fine(record: Mapping) -> bool:
    """Whether every section did what it is there for, or said why it does not."""
    return all(found["state"] in FINE for found in record["sections"].values())


def summary(record: Mapping, columns: Mapping[str, Callable[[dict], str]]) -> Table:
    """One line a section: how it ended, its seconds, and what `columns` make of its figures."""
    rows = tuple(
        (
            name,
            found["state"],
            f"{found.get('seconds', 0.0):.0f}",
            *(cell(found["figures"]) for cell in columns.values()),
        )
        for name, found in record["sections"].items()
    )
    return Table("", ("section", "state", "seconds", *columns), rows, "<<>" + ">" * len(columns))


def _run(command: Sequence[str], seconds: float, found: dict, write: Callable[[], None]) -> None:
    """One section; `found` is what is told of it."""
    began, late, said = time.monotonic(), threading.Event(), deque[str](maxlen=LAST_LINES)
    piped = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "errors": "replace"}
    # A group of its own: what the section has started ends with it.
    with subprocess.Popen(command, start_new_session=True, **piped) as process:

        def end() -> None:
            late.set()
            _kill(process)

        timer, listener = threading.Timer(seconds, end), threading.Thread(target=_pass_on, args=(process.stderr, said))
        timer.start()
        listener.start()
        try:
            for line in process.stdout:
                told = json.loads(line)
                found["figures"].update(told.pop("figures", {}))
                found |= told
                write()
            ended = process.wait()
        except ValueError as error:  # what is no JSON
            ended = f"{type(error).__name__}: {error}"
        finally:
            timer.cancel()
            _kill(process)
            listener.join()
    found["seconds"] = time.monotonic() - began
    if late.is_set():
        found |= {"state": "out of time", "why": f"ended after {seconds:.0f} s; its figures are those until then"}
    elif ended:
        found |= {"state": "failed", "why": f"ended with {ended}", "said": list(said)}
    else:
        found["state"] = "left out" if "left_out" in found else "done"


def _pass_on(stream: TextIO, said: deque[str]) -> None:
    for line in stream:
        said.append(line.rstrip("\n"))
        print(line, end="", file=sys.stderr, flush=True)


def _kill(process: subprocess.Popen) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
