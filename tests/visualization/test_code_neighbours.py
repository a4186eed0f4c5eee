"""Nearest codes and shared groups are what plain loops find; `medbert codes` prints and writes them."""

import json
import sys

import numpy as np
import pytest
from visualization.made_model import CODES, made_params, made_run

from medbert_jax import cli
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.training.code_vectors import CodeVectorsConfig, Trained
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.training.stored_vectors import write_vectors
from medbert_jax.visualization import code_neighbours
from medbert_jax.visualization.code_neighbours import GROUPS, nearest_codes, shared_groups, unit_vectors

NAMES = ["ICD10CM/E11.9", "ICD10CM/E11.65", "ICD10CM/E10.9", "ICD10CM/I10", "ICD10CM/I50.9", "ICD10CM/I50.1",
         "SNOMED/1", "ICD9CM/250.00", "ICD9CM/250.02", "ICD9CM/428.0", "ICD9CM/401.9", "ICD9CM/V45.81"]  # fmt: skip


def made_table(codes: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(codes, 4)).astype(np.float32)


def cosine(one: np.ndarray, other: np.ndarray) -> float:
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def test_the_nearest_codes_are_those_of_the_largest_cosines():
    table = made_table(12)
    for code in (0, 7):
        found = nearest_codes(unit_vectors(table), code, 5)
        others = sorted((-cosine(table[code], table[row]), row) for row in range(12) if row != code)
        assert [row for row, _ in found] == [row for _, row in others[:5]]
        np.testing.assert_allclose([value for _, value in found], [-value for value, _ in others[:5]], atol=1e-6)
    assert len(nearest_codes(unit_vectors(table), 0, 50)) == 11


def test_shared_groups_are_what_plain_loops_count(monkeypatch):
    monkeypatch.setattr(code_neighbours, "NEAREST", 2)
    monkeypatch.setattr(code_neighbours, "_AT_ONCE", 4)  # several blocks
    table, found = made_table(len(NAMES)), None
    found = shared_groups(table, NAMES)
    assert list(found) == list(GROUPS)
    for name, groups_of in GROUPS.items():
        groups, near, random = groups_of(NAMES), [], []
        for code, group in enumerate(groups):
            if not group:
                continue
            system = NAMES[code].split("/")[0]
            others = [row for row, one in enumerate(NAMES) if row != code and one.split("/")[0] == system]
            nearest = sorted(others, key=lambda row, code=code: -cosine(table[code], table[row]))[:2]
            near.append(np.mean([groups[row] == group for row in nearest]))
            random.append(np.mean([groups[row] == group for row in others]))
        assert found[name].codes == len(near) == 11
        assert found[name].nearest == pytest.approx(np.mean(near)) and found[name].random == pytest.approx(
            np.mean(random)
        )
        assert 0 < found[name].random < 1


def test_codes_that_lie_by_their_category_are_found_to(monkeypatch):
    monkeypatch.setattr(code_neighbours, "NEAREST", 1)
    names = ["ICD10CM/E11.9", "ICD10CM/I50.9", "ICD10CM/E11.65", "ICD10CM/I50.1"]
    table = np.array([[1, 0], [0, 1], [2, 0], [0, 3]], np.float32)
    shared = shared_groups(table, names)["three-character category"]
    assert (shared.codes, shared.nearest, shared.random) == (4, 1.0, pytest.approx(1 / 3))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("codes")
    run = made_run(folder / "run")
    vocabulary = load_pretrained(run).vocabulary
    counts = np.array([0] * FIRST_CODE + [3, 3, 3, 3, 0, 3])
    trained = Trained(made_table(FIRST_CODE + len(CODES), seed=5), counts, 9, 0, (1.0,), 1.0)
    about = {"dataset_hash": "h", "vocabulary_hash": vocabulary.hash}
    write_vectors(folder / "v.npz", trained, CodeVectorsConfig(size=4), about)
    write_vectors(folder / "other.npz", trained, CodeVectorsConfig(size=4), about | {"vocabulary_hash": "another"})
    return folder


def typed(monkeypatch, *arguments) -> None:
    monkeypatch.setattr(sys, "argv", ["medbert", "codes", *map(str, arguments)])
    cli.main()


def test_it_is_a_command(made, monkeypatch, capsys):
    out = made / "codes.json"
    typed(monkeypatch, made / "run", "ICD10CM/E11.9", "--nearest", 2, "--json-out", out)
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    table = made_params()["embeddings"]["code_table"][FIRST_CODE:]
    others = sorted(range(1, 6), key=lambda row: -cosine(table[0], table[row]))
    near = found["nearest"]["ICD10CM/E11.9"]["checkpoint"]
    assert [one["code"] for one in near] == [CODES[row] for row in others[:2]]
    assert near[0]["cosine"] == pytest.approx(cosine(table[0], table[others[0]]), abs=1e-6)
    assert "Nearest to ICD10CM/E11.9, diabetes: checkpoint" in said
    assert "random codes" in said and list(found["same_group"]["checkpoint"]) == list(GROUPS)
    assert found["same_group"]["checkpoint"]["chapter"]["codes"] == 6


def test_vectors_stand_beside_over_the_codes_that_have_one(made, monkeypatch):
    out = made / "beside.json"
    typed(monkeypatch, made / "run", "ICD10CM/I10", "--vectors", made / "v.npz", "--json-out", out)
    found = json.loads(out.read_text())
    assert found["codes"] == 5 and set(found["nearest"]["ICD10CM/I10"]) == set(found["same_group"]) == {
        "checkpoint",
        "t-W2V",
    }
    for near in found["nearest"]["ICD10CM/I10"].values():
        assert "ICD9CM/250.00" not in [one["code"] for one in near] and len(near) == 4
    chapter = {name: of["chapter"] for name, of in found["same_group"].items()}
    assert chapter["checkpoint"]["codes"] == chapter["t-W2V"]["codes"] == 4  # one is the last of its system
    assert chapter["checkpoint"]["random"] == chapter["t-W2V"]["random"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["E11.9"],
            "a code must be one of the checkpoint's 6, with its system: got E11.9; look for it in vocabulary.tsv",
        ),
        (["ICD9CM/250.00", "--vectors", "v.npz"], "must have a vector there: got ICD9CM/250.00, without one in"),
        (["--vectors", "other.npz"], "must be of the same codes: got vocabulary another in"),
    ],
)
def test_what_cannot_be_looked_up_is_told(made, monkeypatch, capsys, arguments, message):
    arguments = [made / one if one.endswith(".npz") else one for one in arguments]
    with pytest.raises(SystemExit) as ended:
        typed(monkeypatch, made / "run", *arguments)
    assert ended.value.code == 2 and message in capsys.readouterr().err
