"""Steps of a run: saved from any mesh, restored onto any other, verified first.

A step folder is steps/000123/ with the Orbax items params, opt_state and progress, and MANIFEST.json, which
comes last.
"""

import contextlib
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import SingleDeviceSharding

from medbert_jax.disk.plain_path import plain_path
from medbert_jax.disk.whole_files import fingerprint
from medbert_jax.training.manifest import (
    ASIDE,
    MANIFEST,
    CheckpointError,
    commit_step,
    committed_steps,
    misnamed_steps,
    read_manifest,
    remove_uncommitted,
    step_folder,
    uncommit_step,
    verify_step,
)
from medbert_jax.training.merging import differences, leaf_shapes
from medbert_jax.training.processes import all_processes
from medbert_jax.training.run_directory import RunDirectory

KEPT = 3
"""Newest steps that a run keeps."""


class Restored(NamedTuple):
    """What a step holds."""

    params: dict
    opt_state: object
    """As in training; None when only the parameters were asked for."""
    progress: dict
    """The JSON data given to `save_step`."""


def save_step(run: RunDirectory, step: int, *, params: dict, opt_state: object, progress: dict) -> Path:
    """Write a step, commit it, delete all but the `KEPT` newest. Every process of the run calls this.

    Arrays may be sharded over any mesh and are stored whole, with the shape they have. `opt_state` may be
    None where nothing will be continued from. `progress` is JSON data. A damaged step that is not earlier
    than this one (a resume fell back behind it) is moved aside to NAME.damaged. Returns the step folder.
    Raises CheckpointError when the run holds an intact step that is not earlier, and when the write fails;
    earlier steps stay as they are.
    """
    json.dumps(progress)  # raises before anything is written
    _check_progress(run.path, step, progress)
    folder, primary = step_folder(run.path, step), jax.process_index() == 0
    items = {"params": _without_empty(params)} | ({} if opt_state is None else {"opt_state": opt_state})
    fault = None
    if primary:
        try:
            _clear_way(run.path, step)
        except Exception as found:
            fault = found
    if not all_processes(fault is None):
        raise fault or CheckpointError(f"process 0 could not make way for step {step} of {run.path}; see what it says")
    try:
        trees = {item: ocp.args.StandardSave(tree) for item, tree in items.items()}
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer, plain_path(folder) as plain:
            checkpointer.save(plain, args=ocp.args.Composite(**trees, progress=ocp.args.JsonSave(progress)))
        if primary:
            arrays = {item: leaf_shapes(tree) for item, tree in items.items()}
            commit_step(run.path, step, changes=run.changes, arrays=arrays)
    except Exception as found:
        fault = found
        if primary:
            if folder.exists():
                uncommit_step(folder)
            with contextlib.suppress(OSError):  # what a thread still writes to goes at the next start
                remove_uncommitted(run.path)
    if not all_processes(fault is None):
        cause = repr(fault) if fault else "another process says what"
        raise CheckpointError(
            f"a step must be written whole: got an error at step {step} of {run.path}: {cause}; "
            f"steps {committed_steps(run.path)} are intact, make room or choose another folder and resume"
        ) from fault
    if primary:
        for superseded in committed_steps(run.path)[:-KEPT]:
            uncommit_step(step_folder(run.path, superseded))
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"medbert_jax step {step} is committed")
    return folder


def restore_step(
    run_path: str | Path, step: int, abstract_params: dict, abstract_opt_state=None, *, verified: bool = False
) -> Restored:
    """Verify a committed step, unless it is `verified` already, and load it into the given targets.

    Targets are trees of jax.ShapeDtypeStruct with the shardings of today's mesh, whatever mesh the step was
    written under; a leaf without a sharding goes to the first local device. Without `abstract_opt_state` the
    optimizer state is not loaded. Raises CheckpointError for a damaged step, every damaged file named, and
    for targets unlike what is stored, with a diff.
    """
    stored = (read_manifest if verified else verify_step)(run_path, step).arrays
    targets = {"params": _without_empty(abstract_params)}
    if abstract_opt_state is not None:
        targets["opt_state"] = abstract_opt_state
    lines = []
    for item, target in targets.items():
        kinds = {path: (tuple(shape), dtype) for path, (shape, dtype) in stored.get(item, {}).items()}
        if found := differences(leaf_shapes(target), kinds):
            lines += [f"  {item}:", *found]
    if lines:
        raise CheckpointError(
            f"a step restores into arrays like those it was saved from: step {step} of {run_path} differs\n"
            + "\n".join(lines)
            + "\nuse the configuration of the run, or load its parameters and merge them"
        )
    here = SingleDeviceSharding(jax.local_devices()[0])

    def placed(leaf):
        sharding = getattr(leaf, "sharding", None) or here
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    arguments = {item: ocp.args.StandardRestore(jax.tree.map(placed, target)) for item, target in targets.items()}
    folder = plain_path(step_folder(run_path, step))
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer, folder as plain:
        out = checkpointer.restore(
            plain,
            args=ocp.args.Composite(progress=ocp.args.JsonRestore(), **arguments),
        )
    _check_progress(run_path, step, out["progress"])
    return Restored(_with_empty(out["params"], abstract_params), out.get("opt_state"), out["progress"])


def _without_empty(params: dict) -> dict:
    """Without the parts that have no parameters, as an encoder of no layers: a manifest names arrays alone."""
    parts = {name: _without_empty(part) if isinstance(part, dict) else part for name, part in params.items()}
    return {name: part for name, part in parts.items() if not (isinstance(part, dict) and not part)}


def _with_empty(params: dict, like: dict) -> dict:
    """With the parts without parameters that `like` has."""
    parts = {name: part for name, part in like.items() if isinstance(part, dict)}
    return params | {name: _with_empty(params.get(name, {}), part) for name, part in parts.items()}


def stored_parameters(run_path: str | Path, step: int) -> dict:
    """The parameters a step holds, as a nested dict of jax.ShapeDtypeStruct without shardings."""
    tree: dict = {}
    for path, (shape, dtype) in read_manifest(run_path, step).arrays["params"].items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = jax.ShapeDtypeStruct(tuple(shape), dtype)
    return tree


def latest_good_step(run_path: str | Path, warn: Callable[[str], object] = warnings.warn) -> int | None:
    """The newest step whose files are all as they were written; every damaged newer one is told to `warn`.

    None when the run has no step. Raises CheckpointError when it has some and none is intact and called by its number.
    """
    faults = []
    for step in reversed(committed_steps(run_path)):
        try:
            verify_step(run_path, step)
        except CheckpointError as fault:
            faults.append(str(fault))
            continue
        for fault in faults:
            warn(f"falling back to step {step}: {fault}")
        return step
    if faults := faults or misnamed_steps(run_path):
        lines = "\n".join(faults)
        raise CheckpointError(
            f"a run needs an intact step to go on from: got none in {run_path}\n{lines}\ndo what is said of one of "
            "them, or train again into a new folder"
        )
    return None


def good_step(run_path: str | Path) -> int:
    """The newest intact step of a run. Raises CheckpointError when it has none, with what to do."""
    step = latest_good_step(run_path) if Path(run_path).is_dir() else None
    if step is None:
        raise CheckpointError(
            f"a checkpoint must hold a committed step: got none in {run_path}; pass the run directory that "
            "run_pretrain.py printed, or pretrain to the first checkpoint"
        )
    return step


def step_fingerprint(run_path: str | Path, step: int) -> str:
    """What identifies the stored parameters, wherever they lie: the step and the hash of its manifest."""
    return f"step {step}, manifest {fingerprint(step_folder(run_path, step) / MANIFEST)[1][:16]}"


def _check_progress(run_path: str | Path, step: int, progress: dict) -> None:
    """What is said of a step, where a step is named, is said of this one."""
    if (said := progress.get("step", step)) != step:
        raise CheckpointError(
            f"the progress of a step must be its own: got step {said} in that of step {step} of {run_path}; restore "
            "another step"
        )


def _clear_way(run_path: Path, step: int) -> None:
    """No intact step may be overwritten or stand after the new one; damaged ones are moved aside."""
    for later in (number for number in committed_steps(run_path) if number >= step):
        folder = step_folder(run_path, later)
        try:
            verify_step(run_path, later)
        except CheckpointError:
            aside = folder.with_name(f"{folder.name}{ASIDE}")
            shutil.rmtree(aside, ignore_errors=True)
            folder.rename(aside)
        else:
            raise CheckpointError(
                f"the steps of a run ascend: got step {step}, and {run_path} has an intact step {later}; "
                "resume from that one, or use a new folder"
            )
    shutil.rmtree(step_folder(run_path, step), ignore_errors=True)  # what an interrupted save left
