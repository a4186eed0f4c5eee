"""Variants of a program timed side by side: a process each, rounds in turn, ratios of rounds that followed each other.

The process that compares starts every variant by its command, waits until it is ready, and asks for rounds in turn:
one of each variant, again and again. A variant calls `serve` when it has compiled. What the two say to each other is
one JSON object a line, over the variant's stdin and stdout. Nothing but the standard library is imported here, so that
a variant may live in an environment without jax.

Machines are shared. Of every round it is measured how much of the processors' time was used by others (or stolen from
a virtual machine), and a round with more than `MOST_FOREIGN` of it enters no ratio.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TypedDict

MOST_FOREIGN = 0.1
"""Share of all processors' time that others may use in a round that counts."""
FEWEST_PAIRS = 3
"""Pairs of rounds that a ratio needs."""


class Round(TypedDict):
    """One round of one variant."""

    patients: float
    seconds: float
    cpu_seconds: float
    """Processor time of the variant, all threads."""
    foreign: float
    """Share of all processors' time in the round that was not the variant's, idle time not counted."""


def serve(one_round: Callable[[], float], **facts: object) -> None:
    """In a variant: say that it is ready, with `facts` as JSON data, and do a round whenever asked.

    `one_round` returns how many patients it took; its work has ended when it returns.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no answer

    def answer(**said: object) -> None:
        print(json.dumps(said), file=out, flush=True)

    answer(ready=facts)
    for _ in sys.stdin:
        busy, cpu, began = busy_seconds(), time.process_time(), time.perf_counter()
        patients = one_round()
        seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
        foreign = max(0.0, busy_seconds() - busy - cpu) / (seconds * _processors())
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        answer(patients=patients, seconds=seconds, cpu_seconds=cpu, foreign=foreign, peak_gib=peak)


def interleaved(commands: Mapping[str, Sequence[str]], *, rounds: int, folder: str | None = None) -> dict[str, dict]:
    """Name → what the variant said of itself, its `Round`s, and the most memory that it held, in GiB.

    Variants become ready one after the other, then take `rounds` rounds in turn, every second time in reverse, so that
    none is always behind the same other. RuntimeError where one ends before it has answered.
    """
    with ExitStack() as stack:
        processes = {}
        for name, command in commands.items():
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder)
            stack.callback(_end, process)
            began = time.perf_counter()
            facts = _answer(name, process)["ready"] | {"seconds_to_ready": time.perf_counter() - began}
            processes[name] = process, {"facts": facts, "rounds": [], "peak_gib": 0.0}
        for number in range(rounds):
            for name in list(processes)[:: -1 if number % 2 else 1]:
                process, found = processes[name]
                process.stdin.write("go\n")
                process.stdin.flush()
                one = _answer(name, process)
                found["peak_gib"] = one.pop("peak_gib")
                found["rounds"].append(one)
        return {name: found for name, (_, found) in processes.items()}


def rate(rounds: Sequence[Round]) -> dict:
    """Patients per second, median and range, over all rounds and over those that others left alone."""
    quiet = [one for one in rounds if one["foreign"] <= MOST_FOREIGN]
    told = {"rounds": len(rounds), "quiet_rounds": len(quiet)}
    for name, chosen in (("all", rounds), ("quiet", quiet)):
        if chosen:
            told[f"patients_per_s_{name}"] = spread([one["patients"] / one["seconds"] for one in chosen])
    return told | {"cpu_ms_per_patient": spread([1000 * one["cpu_seconds"] / one["patients"] for one in rounds])}


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> dict:
    """How many times as fast ours are as theirs, pair by pair of rounds; none, and why, where others used the machine.

    The ratio of processor time per patient beside it suffers less from others, and says nothing of waiting.
    """
    pairs = list(zip(ours, theirs, strict=True))
    cpu = [b["cpu_seconds"] / b["patients"] / (a["cpu_seconds"] / a["patients"]) for a, b in pairs]
    quiet = [(a, b) for a, b in pairs if max(a["foreign"], b["foreign"]) <= MOST_FOREIGN]
    told = {"cpu_time_ratio": spread(cpu), "pairs": len(quiet)}
    if len(quiet) < FEWEST_PAIRS:
        most = max(max(a["foreign"], b["foreign"]) for a, b in pairs)
        return told | {
            "none": f"a ratio needs {FEWEST_PAIRS} pairs of rounds with at most {MOST_FOREIGN:.0%} of the processors "
            f"used by others: got {len(quiet)} of {len(pairs)}, and up to {most:.0%}; run it again on a quiet machine"
        }
    return told | spread([a["patients"] / a["seconds"] / (b["patients"] / b["seconds"]) for a, b in quiet])


def spread(values: Sequence[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {"median": statistics.median(values), "lowest": min(values), "highest": max(values)}


def _answer(name: str, process: subprocess.Popen) -> dict:
    line = process.stdout.readline()
    if not line:
        raise RuntimeError(f"a variant answers until it is told to end: got code {process.wait()} of {name}; see above")
    return json.loads(line)


def _end(process: subprocess.Popen) -> None:
    process.stdin.close()
    process.wait()


def _processors() -> int:
    return os.cpu_count() or 1


def busy_seconds() -> float:
    """Processor time since the start of the machine that was not idle, that of other machines included."""
    with open("/proc/stat") as file:
        used = [int(number) for number in file.readline().split()[1:9]]
    idle, waiting = used[3:5]  # the others: user, nice, system, interrupts of both kinds, steal
    return (sum(used) - idle - waiting) / os.sysconf("SC_CLK_TCK")
