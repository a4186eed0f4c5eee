"""metrics.jsonl is for people: whatever happens to it, the run goes on, and says what it could not read."""

import json
import math

import numpy as np
import pytest

from medbert_jax.data.vocabulary import Vocabulary
from medbert_jax.training import progress as progress_module
from medbert_jax.training import run_directory
from medbert_jax.training.pretraining import summarize
from medbert_jax.training.progress import MetricsLog, Progress, metrics_row, versions, versions_of
from medbert_jax.training.run_directory import RunDirectory

ROWS = [
    {"kind": kind, "step": step, "loss": 0.5 + step, "prolonged_los_auroc": None, "patients_per_second": 1234.5}
    for step in (1, 2, 10, 11)
    for kind in ("train", "validation")
]
LINES = [json.dumps(row).encode() + b"\n" for row in ROWS]
LAST = 10


@pytest.fixture
def run(tmp_path):
    vocabulary = Vocabulary(("ICD10CM/A",), np.ones(1, np.int64), ("",))
    with RunDirectory.create_or_open(tmp_path / "run", config={"steps": 20}, vocabulary=vocabulary) as run:
        yield run


def go_on(run: RunDirectory, content: bytes) -> tuple[list[bytes], bytes]:
    """The lines that a run resumed from step `LAST` keeps of such a file, and what it set aside."""
    aside = run.path / "metrics.damaged.jsonl"
    aside.unlink(missing_ok=True)
    run.metrics_path.write_bytes(content)
    run.forget_metrics_after(LAST)
    progress = Progress(run.metrics_path, total=20, start=LAST)
    progress.record(12, {"loss": 1.0}, kind="train")
    kept = run.metrics_path.read_bytes().splitlines(keepends=True)
    assert json.loads(kept.pop()) == {"kind": "train", "step": 12, "loss": 1.0}
    assert all(metrics_row(line) for line in kept)
    return kept, aside.read_bytes() if aside.exists() else b""


def test_any_flipped_bit_costs_its_own_line_at_most_and_is_told(run, capsys):
    content, wanted = b"".join(LINES), [line for line in LINES if json.loads(line)["step"] <= LAST]
    assert go_on(run, content) == (wanted, b"") and "metrics.jsonl" not in capsys.readouterr().err
    rng, told = np.random.default_rng(0), 0
    for place in rng.integers(0, len(content), 200):
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        kept, aside = go_on(run, bytes(damaged))
        assert len([line for line in wanted if line not in kept]) <= (2 if content[place] == 10 else 1)
        said = capsys.readouterr().err
        assert bool(aside) == ("moved to metrics.damaged.jsonl" in said)
        if aside:
            told += 1
            line = content[:place].count(b"\n") + 1
            assert f"in line {line}" in said and str(run.metrics_path) in said
            assert aside in bytes(damaged) + b"\n"
    assert told > 50


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"\x00" * 5000, id="what a machine that lost power left"),
        pytest.param(b"\xff\xfe{}", id="no UTF-8"),
        pytest.param(b"[]", id="no record"),
        pytest.param(b'{"kind": "train", "step": "7"}', id="a step in words"),
        pytest.param(b'{"kind": ["train"], "step": 7}', id="kinds"),
        pytest.param(b"[" * 100_000, id="deep"),
        pytest.param(LINES[0].rstrip() + LINES[1].rstrip(), id="two in one"),
        pytest.param(LINES[0][:30], id="cut"),
    ],
)
def test_what_is_no_record_is_set_aside_wherever_it_stands(run, capsys, line):
    for place in (0, 2, len(LINES)):
        lines = [*LINES[:place], line + b"\n" * (place < len(LINES)), *LINES[place:]]
        kept, aside = go_on(run, b"".join(lines))
        assert kept == LINES[:6] and aside == line + b"\n"
        assert f"got another in line {place + 1} of" in capsys.readouterr().err


def test_what_was_set_aside_before_stays(run):
    go_on(run, b"one\n")
    run.metrics_path.write_bytes(b"two\n")
    run.forget_metrics_after(LAST)
    assert (run.path / "metrics.damaged.jsonl").read_bytes() == b"one\ntwo\n"


def test_a_whole_line_without_its_end_is_kept(run):
    assert go_on(run, b"".join(LINES[:6]).rstrip()) == (LINES[:6], b"")


def test_other_packages_are_told_and_both_are_noted(run, monkeypatch, capsys):
    monkeypatch.setattr(run_directory, "versions", lambda: {"jax": "0.12.0", "jaxlib": "0.12.0", "numpy": "2.3.0"})
    run.note_versions(4, {"jax": "0.12.0", "jaxlib": "0.12.0", "numpy": "2.3.0"})
    run.note_versions(4, {})  # a step of a version that stored none
    assert not run.metrics_path.exists() and "got" not in capsys.readouterr().err
    assert versions_of({"step": 4}) == {"dropout": "rbg"}  # whose seeds of dropout were
    assert versions_of({"versions": {"jax": "1"}})["dropout"] == versions()["dropout"] == "threefry2x32"
    run.metrics_path.write_bytes(LINES[0])
    run.note_versions(4, {"jax": "0.10.2", "jaxlib": "0.10.2", "numpy": "2.3.0", "gone": "1"})
    first, row = map(json.loads, run.metrics_path.read_bytes().splitlines())
    assert first == ROWS[0]
    assert row == {
        "kind": "versions",
        "step": 4,
        "jax": ["0.10.2", "0.12.0"],
        "jaxlib": ["0.10.2", "0.12.0"],
        "gone": ["1", None],
    }
    said = capsys.readouterr().err
    assert "got jax 0.10.2 → 0.12.0, jaxlib 0.10.2 → 0.12.0, gone 1 → none after step 4" in said
    run.forget_metrics_after(4)
    assert len(run.metrics_path.read_bytes().splitlines()) == 2


class Clock:
    """A clock that stands still unless it is told to go on."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def dispatch(steps: int) -> dict:
    """Metrics of steps that train on 10 patients each."""
    names = ("loss", "masked_code_sum", "masked_code_correct", "masked_code_weight", "prolonged_los_sum")
    return dict.fromkeys((*names, "gradient_norm"), np.ones(steps, np.float32)) | {
        "prolonged_los_weight": np.full(steps, 10)
    }


def test_a_rate_is_of_whole_dispatches(tmp_path, monkeypatch, capsys):
    clock = Clock()
    monkeypatch.setattr(progress_module, "time", clock)
    progress = Progress(tmp_path / "metrics.jsonl", total=200, start=0)
    log = MetricsLog(progress, summarize, edges=(4,))
    step = 0
    for steps, seconds in ((10, 2.0), (3, 1.0), (2, 1.0), (1, 1.0), (50, 4.0)):
        clock.now += seconds
        step += steps
        log.add(step, dispatch(steps))
        if step == 16:
            clock.now += 1000.0
            progress.record(step, {"loss": 0.5}, kind="validation")
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = {row["step"]: row["patients_per_second"] for row in rows if row["kind"] == "train"}
    # Two windows end within the first dispatch; the third ends in the second one; of two dispatches: (20 + 10) / 2 s.
    assert {step: rates[step] for step in (4, 8, 12, 16)} == {4: 50.0, 8: 50.0, 12: 30.0, 16: 15.0}
    assert {rates[step] for step in range(20, 68, 4)} == {125.0}  # without the validation before
    assert "patients_per_second" not in next(row for row in rows if row["kind"] == "validation")
    # So is the time left: of the steps after the first dispatch, which compiles.
    lines = {line.split("/")[0].split()[-1]: line for line in capsys.readouterr().err.splitlines() if "train" in line}
    assert not any("left" in lines[step] for step in ("4", "8"))
    assert f"{(200 - 13) * 1.0 / 3 / 60:.1f} min left" in lines["12"]
    assert f"{(200 - 66) * 1007.0 / 56 / 60:.1f} min left" in lines["20"]
    assert lines["20"].split("|")[-1] == lines["64"].split("|")[-1]


def test_what_is_not_known_is_not_called_nan(tmp_path, capsys):
    Progress(tmp_path / "metrics.jsonl", total=2, start=0).record(
        1, {"prolonged_los_auroc": math.nan}, kind="validation"
    )
    said = capsys.readouterr().err
    assert "prolonged los auroc unknown" in said and "nan" not in said
    assert json.loads((tmp_path / "metrics.jsonl").read_text())["prolonged_los_auroc"] is None
