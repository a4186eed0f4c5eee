"""`medbert attention`: what it writes, of whom, and what it refuses."""

import base64
import json
import re
import sys

import numpy as np
import pytest
from visualization.made_model import CODES, made_dataset, made_run, made_sequences

from medbert_jax import cli
from medbert_jax.training.pretrained import load_pretrained
from medbert_jax.visualization.attention_command import attention
from medbert_jax.visualization.attention_record import find_patient
from medbert_jax.visualization.attention_weights import RELATIONS, attention_weights
from medbert_jax.visualization.inside_options import AttentionOptions


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inside")
    made_run(folder / "run")
    made_run(folder / "tuned", seed=1, kind="finetune")
    made_dataset(folder)
    return folder


def written(made, tmp_path, patient: str, **options) -> str:
    asked = AttentionOptions(
        made / "run", made / "drawn" / "1.0.0", patient, out=tmp_path / "new" / "a.html", **options
    )
    attention(asked)
    return asked.out.read_text("utf-8")


def embedded(page: str, model: int) -> np.ndarray:
    count = len(json.loads(re.search(r'id="data">(.*?)</script>', page)[1])["codes"])
    blocks = re.findall(rf'id="weights-{model}-\d+">(.*?)</script>', page)
    layers = [np.frombuffer(base64.b64decode(block), "<f4") for block in blocks]
    return np.stack(layers).reshape(len(blocks), -1, count, count)


def test_the_page_has_the_weights_bit_for_bit_and_nobody_and_no_date(made, tmp_path, capsys):
    page = written(made, tmp_path, "0", beside=made / "tuned")
    patient = made_sequences().take([0])
    for number, name in enumerate(("run", "tuned")):
        weights = attention_weights(load_pretrained(made / name), patient)
        np.testing.assert_array_equal(embedded(page, number), weights)
    assert "MRN" not in page and "1.0.0" not in page and "9000" not in page
    assert "pretrained, run, step 1" in page and "fine-tuned, tuned, step 1" in page
    assert '"day 0, 3 days", "day 40", "day 41"' in page
    said = capsys.readouterr().out
    size = (tmp_path / "new" / "a.html").stat().st_size
    assert "2 models × 2 layers × 3 heads × 9² weights" in said and f"{size / 1e6:,.1f} MB" in said


def test_an_id_finds_him_and_stands_in_the_page_where_that_is_asked_for(made, tmp_path):
    assert "MRN-one" not in written(made, tmp_path, "MRN-one")
    assert "id MRN-one" in written(made, tmp_path, "MRN-one", show_id=True)


def test_a_record_that_is_cut_says_so(made, tmp_path, capsys):
    page = written(made, tmp_path, "3")
    assert "The record has 15 codes" in page and "10 codes in 2 visits" in page
    assert "the record has 15 codes: shown are the 10 most recent ones" in capsys.readouterr().out


def test_the_json_has_the_shares_of_the_patient_and_of_several(made, tmp_path):
    file = tmp_path / "shares.json"
    written(made, tmp_path, "2", beside=made / "tuned", patients=3, json_out=file)
    found = json.loads(file.read_text())
    assert (found["split"], found["number"], found["codes"], len(found["models"])) == ("validation", 2, 5, 2)
    for model in found["models"]:
        assert model["patient"]["patients"] == 1 and model["averaged"]["patients"] == 3
        for shares in (model["patient"], model["averaged"]):
            assert np.shape(shares["layers"]) == (2, 3) and list(shares["uniform"]) == list(RELATIONS)
            for one in [*np.ravel(shares["layers"]), shares["uniform"]]:
                assert sum(one.values()) == pytest.approx(1, abs=1e-5)
    assert "MRN" not in file.read_text()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("4", "got 4, and validation has 4 patients; give a smaller number, or id:4 for the id"),
        ("12345", "give a smaller number, or id:12345 for the id"),
        ("nobody", "got 'nobody', whom validation does not have"),
    ],
)
def test_who_is_not_there_is_told(asked, message):
    with pytest.raises(ValueError, match=message):
        find_patient(made_sequences(), asked, "validation")


def test_patients_are_found_by_number_and_by_id():
    sequences = made_sequences()
    assert [find_patient(sequences, asked, "train") for asked in ("1", "MRN-two", "id:MRN-two", "id:12345")] == [
        1,
        1,
        1,
        2,
    ]
    with pytest.raises(ValueError, match="got 'MRN-two', who has 2 predictions, the numbers 0, 2; give one of them"):
        find_patient(sequences.take([1, 0, 1]), "MRN-two", "train")


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"heads": 2}, "as many layers and heads: got heads 3 and 2 in "),
        ({"layers": 1, "max_length": 11}, "got layers 2 and 1, max_length 12 and 11 in "),
        ({"layers": 0}, "attention needs a model with layers: got .*other, which has none"),
        ({"codes": CODES[:-1]}, "must read the same codes, .*: got vocabulary "),
    ],
)
def test_models_that_cannot_stand_side_by_side_are_refused(made, tmp_path, model, message):
    other = made_run(tmp_path / "other", **model)
    with pytest.raises(ValueError, match=message):
        written(made, tmp_path, "0", beside=other)


def test_a_dataset_of_other_codes_is_refused(made, tmp_path):
    other = made_run(tmp_path / "other", codes=CODES[:-1])
    with pytest.raises(ValueError, match="serialized with the checkpoint's vocabulary"):
        attention(AttentionOptions(other, made / "drawn" / "1.0.0", "0", out=tmp_path / "a.html"))
    assert not (tmp_path / "a.html").exists()


def test_it_is_a_command(made, tmp_path, monkeypatch, capsys):
    typed = [made / "run", made / "drawn" / "1.0.0", "0", "--out", tmp_path / "a.html"]
    monkeypatch.setattr(sys, "argv", ["medbert", "attention", *map(str, typed)])
    cli.main()
    assert f"attention in {tmp_path / 'a.html'}" in capsys.readouterr().out
