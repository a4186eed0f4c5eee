"""The training script reads like an essay: nine sections in order, none long, none that leans on one far back."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TITLES = ["Announce", "Data", "Model", "Optimizer", "Mesh and shardings", "State", "Compile", "Loop", "Finish"]
# What a run is about, in every section after the one that it came from: its configuration and devices, its folder, who
# may end it, where batches come from, its two steps, and the state, with where it lies and how far it is.
LASTING = {"config", "mesh", "run", "interruption", "source", "held_out", "train_step", "eval_step"}
LASTING |= {"layout", "state", "step", "window"}


def sections(source: str) -> list[tuple[str, range]]:
    """Title and lines of every section."""
    lines = source.splitlines()
    starts = [number for number, line in enumerate(lines, 1) if line.strip().startswith("# ── ")]
    (end,) = [
        node.end_lineno
        for node in ast.parse(source).body
        if isinstance(node, ast.FunctionDef) and node.lineno < starts[0] <= node.end_lineno
    ]
    ends = [*starts[1:], end + 1]
    return [(lines[start - 1].strip(" #─"), range(start + 1, end)) for start, end in zip(starts, ends, strict=True)]


def faults(source: str) -> list[str]:
    """What keeps a script from reading like that."""
    lines, parts = source.splitlines(), sections(source)
    found = [title for title, part in parts if sum(bool(lines[line - 1].strip()) for line in part) > 25]
    titles = [title.split(":")[0].split(",")[0] for title, _ in parts]
    if titles != [f"{number} {title}" for number, title in enumerate(TITLES, 1)]:
        found.append(f"sections {titles}")
    where = {line: number for number, (_, part) in enumerate(parts, 1) for line in part}
    names = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Name) and node.lineno in where]
    made = {(node.id, where[node.lineno]) for node in names if isinstance(node.ctx, ast.Store)}
    for name, here in sorted({(node.id, where[node.lineno]) for node in names if isinstance(node.ctx, ast.Load)}):
        before = [number for one, number in made if one == name and number <= here]
        if name not in LASTING and before and here - max(before) > 1:
            found.append(f"{name} of section {max(before)} in section {here}")
    return found


@pytest.mark.parametrize("script", ["run_pretrain.py"])
def test_sections_are_nine_and_short_and_use_what_is_near(script):
    assert faults((ROOT / script).read_text()) == []


def test_faults_are_found():
    source = (ROOT / "run_pretrain.py").read_text()
    assert faults(source.replace("4 Optimizer", "4 Optimiser"))
    mesh = "    mesh = make_mesh(config.mesh)\n"
    assert len(faults(source.replace(mesh, mesh * 24))) == 1
    late = source.replace('    say(f"checkpoint in {run.path}")', '    say(f"checkpoint of {vocabulary}")')
    assert faults(late) == ["vocabulary of section 2 in section 9"]
