"""Does a run that was stopped, killed or damaged end as if nothing had happened? Bit for bit, dropout on.

    python benchmarks/resume.py

A tiny model on 200 made patients, real runs of `run_pretrain.py`. Figures:

- k steps and a resume against 2k steps at random k: parameters, optimizer state and the metrics of every step;
- a run whose process is killed (SIGKILL) again and again at random moments, many of them within a save: what was
  committed must be intact, the next start must find it and clear what was half written, and the end must be that of a
  run that was never killed;
- bits flipped in every file of a checkpoint: what `restore_step`, `load_pretrained` and the start of a run then do;
- a trained state restored in processes with 1, 2, 4 and 8 devices.

The processes that are killed are forked from this one, so that the interpreter's start is not paid every time, and
programs are compiled once for all of them. Quick compilation, as in the tests. About ten minutes on two cores.
"""

import contextlib
import hashlib
import io
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from dataclasses import asdict, replace
from pathlib import Path

import jax
import tyro
from provenance import machine

import medbert_jax
from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training.checkpointing import latest_good_step, restore_step, stored_parameters
from medbert_jax.training.manifest import MANIFEST, CheckpointError, committed_steps, step_folder, verify_step
from medbert_jax.training.run_directory import RunDirectory, read_config

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from training.test_resume import (  # noqa: E402  (beside the tests, which are no package)
    CONFIG,
    PATIENTS,
    Runs,
    assert_same_runs,
    fingerprint,
    small_dataset,
    state_of,
)

import run_pretrain  # noqa: E402

# Saves take longer than the steps between them.
KILLED = replace(
    CONFIG,
    steps=1000,
    model=replace(CONFIG.model, hidden_size=64),
    corpus=replace(CONFIG.corpus, steps_per_dispatch=50),
    checkpoint_every=2,
    evaluate_every=1000,
)
WITHIN_S = 0.5  # from the first save of a life to its end, at most


def forked(log: Path, work, *arguments) -> int:
    """A process that does `work(*arguments)`, what it says in `log`. Returns its id."""
    if child := os.fork():
        return child
    code = 1
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        work(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_end(log: Path, work, *arguments) -> None:
    """Do `work(*arguments)` in a process of its own. Raises RuntimeError where that fails."""
    if os.waitpid(forked(log, work, *arguments), 0)[1]:
        raise RuntimeError(log.read_text()[-2000:])


def half_written(run: Path) -> dict[str, tuple[int, int]]:
    """Step folders that are not committed, by name; the values tell a new one from an old one of the same name."""
    found = {}
    for folder in (run / "steps").glob("[0-9]*"):
        with contextlib.suppress(FileNotFoundError):
            if not (folder / MANIFEST).exists():
                status = folder.stat()
                found[folder.name] = status.st_ino, status.st_mtime_ns
    return found


def manifests(run: Path) -> dict[int, str]:
    """Committed steps and the hashes of their manifests."""
    found = {}
    for step in committed_steps(run):
        with contextlib.suppress(FileNotFoundError):  # superseded just now
            found[step] = hashlib.sha256((step_folder(run, step) / MANIFEST).read_bytes()).hexdigest()
    return found


def kills(folder: Path, dataset: str, number: int, draw: random.Random) -> dict:
    """Kill a run `number` times, let it end, and compare it with one that was left in peace."""
    run = folder / "killed"
    config = replace(KILLED, dataset=dataset, run=str(run))
    peace = replace(config, run=str(folder / "peace"), checkpoint_every=config.steps)
    wait_for_end(folder / "peace.log", run_pretrain.main, peace)
    seen: dict[int, str] = {}
    within_save = lost = changed = stale_left = starts = wrong_starts = 0
    life_s = 0.0
    for trial in range(number):
        before, stale, began = set(seen), half_written(run) if run.exists() else {}, time.monotonic()
        log = folder / f"killed-{trial}.log"
        child = forked(log, run_pretrain.main, config)
        # A third at any moment from the start of the process, the others after the life's first commit.
        anywhere = trial % 3 == 2
        deadline = began + draw.uniform(0, life_s + WITHIN_S) if anywhere else None
        checked = False
        while deadline is None or time.monotonic() < deadline:
            now = manifests(run) if run.exists() else {}
            changed += sum(seen.get(step, digest) != digest for step, digest in now.items())
            seen |= now
            if deadline is None and now.keys() - before:
                life_s = max(life_s, time.monotonic() - began)
                deadline = time.monotonic() + draw.uniform(0, WITHIN_S)
            said = log.read_text() if before and not checked and log.exists() else ""
            if found := re.search(r"resumed from step ([\d,]+)\n", said):
                checked, starts = True, starts + 1
                wrong_starts += int(found[1].replace(",", "")) != max(before)
                stale_left += len(stale.items() & half_written(run).items())
            time.sleep(0.004)
            if os.waitpid(child, os.WNOHANG)[0]:
                raise RuntimeError(f"the run ended by itself: {log.read_text()[-2000:]}")
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        now = manifests(run)
        changed += sum(seen.get(step, digest) != digest for step, digest in now.items())
        seen |= now
        within_save += bool(half_written(run).items() - stale.items())
        for step in sorted(seen)[-3:]:  # older ones are superseded
            try:
                verify_step(run, step)
            except CheckpointError as fault:
                lost += 1
                print(fault)
    stale, before = half_written(run), max(seen)
    # The rest of it in peace.
    log = folder / "rest.log"
    wait_for_end(log, run_pretrain.main, replace(config, checkpoint_every=config.steps))
    stale_left += len(stale.items() & half_written(run).items())
    wrong_starts += f"resumed from step {before:,}\n" not in log.read_text()
    return {
        "kills": number,
        "within_a_save": within_save,
        "steps_committed": len(seen),
        "committed_steps_lost_or_damaged": lost,
        "manifests_that_changed": changed,
        "starts_looked_at": starts + 1,
        "starts_from_another_step_than_the_last": wrong_starts,
        "half_written_folders_left_after_a_start": stale_left,
        "killed_until_step": before,
        "steps": config.steps,
        "runs": (run, Path(peace.run)),  # compared when this process needs no more forks
    }


def resumes(runs: Runs, number: int, draw: random.Random) -> dict:
    """k steps and a resume against 2k steps: every second k in batches of so many patients, every fifth goes on with
    longer dispatches or with the corpus elsewhere."""
    steps_per_dispatch = CONFIG.corpus.steps_per_dispatch
    drawn = draw.sample([k for k in range(3, 60) if k % steps_per_dispatch], number)
    unequal, changes = [], ({"steps_per_dispatch": 8}, {"placement": "streamed"}, {"placement": "sharded"})
    for place, k in enumerate(drawn):
        config = replace((CONFIG, PATIENTS)[place % 2], steps=2 * k, seed=place)
        whole = run_pretrain.main(replace(config, dataset=runs.dataset, run=runs.new()))
        changed = changes[place // 5 % len(changes)] if place % 5 == 4 else {}
        corpus = replace(config.corpus, **changed)
        resumed = runs.resumed(replace(config, corpus=corpus), runs.cut(config, k))
        try:
            assert_same_runs(whole, resumed, config)
        except AssertionError as difference:
            unequal.append([k, str(difference)])
    return {"k": drawn, "steps_per_dispatch": steps_per_dispatch, "unequal": unequal}


def start(run: Path, config: dict, vocabulary: Vocabulary, warn) -> None:
    """What `run_pretrain.py` does with a run folder before it trains."""
    with RunDirectory.create_or_open(run, config=config, vocabulary=vocabulary):
        step = latest_good_step(run, warn=warn)
        restore_step(run, step, stored_parameters(run, step))


def flips(runs: Runs, number: int, draw: random.Random) -> dict:
    """Flip one bit at a time in the newest of two checkpoints, and see what readers do."""
    config = replace(CONFIG, dataset=runs.dataset, run=runs.new(), checkpoint_every=13)
    run, vocabulary = run_pretrain.main(config), Vocabulary.read(Path(runs.dataset) / "vocabulary.tsv")
    newest = committed_steps(run)[-1]
    given = {name: value for name, value in read_config(run).items() if name != "kind"}
    intact = fingerprint(state_of(run, newest, CONFIG))
    files = sorted(path for path in step_folder(run, newest).rglob("*") if path.is_file())
    files += [run / "config.json", run / "vocabulary.tsv"]
    readers = {
        "restore_step": lambda warn: restore_step(run, newest, stored_parameters(run, newest)),
        "load_pretrained": lambda warn: medbert_jax.load_pretrained(run),
        "start of a run": lambda warn: start(run, given, vocabulary, warn),
    }
    outcomes = {name: {"refused": 0, "fell_back_aloud": 0, "silent": 0, "file_not_named": []} for name in readers}
    for trial in range(number):
        file = files[trial % len(files)]
        content = file.read_bytes()
        damaged = bytearray(content)
        damaged[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        file.write_bytes(damaged)
        for name, read in readers.items():
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                said = []
                try:
                    read(said.append)
                    said += [str(one.message) for one in told]
                    outcome = "fell_back_aloud" if any("falling back" in text for text in said) else "silent"
                except (CheckpointError, ValueError) as fault:
                    outcome, said = "refused", [str(fault)]
            outcomes[name][outcome] += 1
            if not any(file.name in text for text in said):
                outcomes[name]["file_not_named"].append([str(file.relative_to(run)), " ".join(said)[:300]])
        file.write_bytes(content)
    assert fingerprint(state_of(run, newest, CONFIG)) == intact
    return {"flips": number, "files": len(files), "readers": outcomes}


def devices(run: Path) -> dict:
    """Fingerprints of a trained state in processes with other numbers of devices, cut over them or whole on each."""
    program = (
        "import sys, jax, medbert_jax\n"
        "from training.test_resume import fingerprint, state_on_mesh\n"
        "number, run = jax.device_count(), sys.argv[1]\n"
        "for model in {1, number}: print(number, model, fingerprint(state_on_mesh(run, number, model)))\n"
        "print(number, 'load_pretrained', fingerprint({'params': medbert_jax.load_pretrained(run).params}))\n"
    )
    state, lines = state_of(run, CONFIG.steps, CONFIG), []
    expected = {"load_pretrained": fingerprint({"params": state["params"]})}
    for number in (1, 2, 4, 8):
        environment = {
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={number}",
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")]),
        }
        words = [sys.executable, "-c", program, str(run)]
        said = subprocess.run(words, env=os.environ | environment, capture_output=True, text=True, check=True).stdout
        lines += [line.split() for line in said.splitlines()]
    unequal = [line for line in lines if line[2] != expected.get(line[1], fingerprint(state))]
    return {"devices": [1, 2, 4, 8], "restores": len(lines), "unequal": unequal}


def timed(record: dict, name: str, measure, *arguments) -> None:
    began = time.monotonic()
    record[name] = measure(*arguments)
    record[name]["seconds"] = round(time.monotonic() - began, 1)
    print(name, {key: value for key, value in record[name].items() if key != "k"}, flush=True)


def main(
    out: Path = Path(__file__).parent / "results" / "resume.json",
    resumed: int = 20,
    killed: int = 50,
    flipped: int = 200,
    seed: int = 0,
) -> None:
    """Measure and write the JSON.

    Args:
        out: where the figures go.
        resumed: random numbers of steps after which a run is stopped and goes on.
        killed: times that a run is killed.
        flipped: bits.
        seed: of the moments, the numbers of steps and the bits.
    """
    draw, record = random.Random(seed), {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        # In another process, as all that starts threads: this one is forked from.
        wait_for_end(folder / "dataset.log", lambda: (folder / "where").write_text(small_dataset(folder)))
        runs = Runs(folder, (folder / "where").read_text())
        jax.config.update("jax_disable_most_optimizations", True)
        jax.config.update("jax_compilation_cache_dir", str(folder / "programs"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        timed(record, "kills", kills, folder, runs.dataset, killed, draw)
        try:
            assert_same_runs(*record["kills"].pop("runs"), KILLED)
            record["kills"]["end_equals_the_run_in_peace"] = True
        except AssertionError as difference:
            record["kills"]["end_equals_the_run_in_peace"] = str(difference)
        with contextlib.redirect_stderr(io.StringIO()):
            timed(record, "resumes", resumes, runs, resumed, draw)
            timed(record, "flips", flips, runs, flipped, draw)
            timed(record, "devices", devices, runs.whole(CONFIG))
    record = {"machine": machine(), "model": asdict(CONFIG.model), **record}
    out.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    tyro.cli(main)
