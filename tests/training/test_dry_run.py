"""What a run would cost, and where its metrics go besides."""

import shutil
import struct
from dataclasses import replace
from pathlib import Path

import jax
import pytest
from made_sequences import TINY_MODEL

import run_pretrain
from medbert_jax.data.row_plan import RowsConfig
from medbert_jax.data.token_store import read_vocabulary
from medbert_jax.models.med_bert import init
from medbert_jax.training import dry_run as module
from medbert_jax.training import tensorboard
from medbert_jax.training.config import PretrainConfig
from medbert_jax.training.optimizer import OptimizerConfig
from medbert_jax.training.progress import metrics_row

STORED = max(path for path in (Path(__file__).parents[1] / "stored").iterdir() if (path / "run").is_dir())


@pytest.fixture
def config(tmp_path) -> PretrainConfig:
    dataset = shutil.copytree(STORED / "dataset", tmp_path / "dataset")
    rows = RowsConfig(batch_size=16, short_row=32)
    config = PretrainConfig(str(dataset), str(tmp_path / "run"), model=TINY_MODEL, rows=rows, steps=4, log_every=1)
    return replace(config, optimizer=OptimizerConfig(warmup_steps=0))


def test_it_tells_and_leaves_nothing(config, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "STEPS", 6)
    there = sorted(tmp_path.iterdir())
    run_pretrain.main(replace(config, dry_run=True))
    printed = capsys.readouterr().out
    model = replace(TINY_MODEL, vocabulary_size=read_vocabulary(config.dataset).size)
    count = sum(leaf.size for leaf in jax.tree.leaves(jax.eval_shape(lambda key: init(model, key), jax.random.key(0))))
    assert f"all {count:,}" in " ".join(printed.split())
    assert "4 (" in printed and "patients/s" in printed and "MB" in printed
    assert sorted(tmp_path.iterdir()) == there


def scalars(folder: Path) -> dict[tuple[str, int], float]:
    """(tag, step) → value, of TFRecords of events."""
    from tensorboardX.proto.event_pb2 import Event

    found = {}
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = Event.FromString(content[12 : 12 + length])
            found |= {(value.tag, event.step): value.simple_value for value in event.summary.value}
            content = content[16 + length :]
    return found


def test_tensorboard_has_every_finite_metric(config):
    run = run_pretrain.main(replace(config, tensorboard=True))
    rows = [row for row in map(metrics_row, (run / "metrics.jsonl").read_bytes().split(b"\n")) if row]
    expected = {
        (f"{row['kind']}/{name}", row["step"]): value
        for row in rows
        for name, value in row.items()
        if name not in ("kind", "step") and value is not None
    }
    assert len(expected) > 20
    assert scalars(run / "tensorboard") == pytest.approx(expected, rel=1e-6)


def test_without_the_extra_it_says_which(config, monkeypatch):
    monkeypatch.setattr(tensorboard, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'medbert-jax\[tensorboard\]'"):
        run_pretrain.main(replace(config, tensorboard=True))
