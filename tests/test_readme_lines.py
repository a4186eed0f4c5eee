"""The lines of README.md and docs/python.md, run as they stand by somebody with a checkpoint and a table of codes."""

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from made_checkpoint import made_checkpoint

from medbert_jax import MedBertClassifier

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```python\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture
def stranger(tmp_path, monkeypatch) -> Path:
    """A folder with runs/NAME, codes.parquet and labels.parquet: odd patients are cases, with codes of their own."""
    monkeypatch.chdir(tmp_path)
    made_checkpoint(tmp_path / "runs" / "NAME")
    rng = np.random.default_rng(0)
    rows = [
        {
            "patient_id": f"p{patient:02}",
            "admit_time": f"20{10 + visit}-01-01",
            "code": f"A{rng.integers(8) + 10 * (patient % 2):02}",
            "code_system": "ICD10CM",
        }
        for patient in range(60)
        for visit in range(3)
    ]
    pl.DataFrame(rows).write_parquet(tmp_path / "codes.parquet")
    labels = pl.DataFrame({"patient_id": [f"p{patient:02}" for patient in range(60)], "label": [0, 1] * 30})
    labels.write_parquet(tmp_path / "labels.parquet")
    return tmp_path


@pytest.mark.parametrize("page", ["README.md", "docs/python.md"])
def test_three_lines_give_vectors_and_five_a_classifier(stranger, page):
    blocks = FENCE.findall((ROOT / page).read_text())
    vectors = next(block for block in blocks if "load_pretrained" in block)
    classifier = next(block for block in blocks if "MedBertClassifier" in block)
    counted = [
        sum(bool(line) and not line.startswith("import") for line in block.splitlines())
        for block in (vectors, classifier)
    ]
    assert counted[0] <= 3 and counted[1] <= 5
    found: dict = {}
    exec(vectors, found)
    assert [state.shape for state in found["states"]] == [(3, 32)] * 60
    assert len(repr(found["model"]).splitlines()) < 10 and len(repr(found["model"])) < 1000
    exec(classifier, found)
    assert found["risks"].shape == (60,) and 0 <= found["risks"].min() <= found["risks"].max() <= 1
    if page == "README.md":
        kept = MedBertClassifier.load(stranger / "models" / "mine")
        np.testing.assert_array_equal(kept.predict_proba(found["sequences"])[:, 1], found["risks"])
