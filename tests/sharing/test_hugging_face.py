"""Models in the form of Hugging Face's transformers: out and in again bit for bit, and the same numbers there."""

import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from made_checkpoint import made_checkpoint, made_vocabulary
from made_sequences import TINY_MODEL, made_sequences

from medbert_jax import cli
from medbert_jax.data.rows import padded_batch
from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.models.config import preset
from medbert_jax.models.med_bert import apply, masked_code_logits
from medbert_jax.training.pretrained import load_pretrained

TOLERANCE = 1e-5
MODELS = {
    "paper": replace(TINY_MODEL, layers=2),
    "released_code": replace(
        preset("released_code", TINY_MODEL.vocabulary_size),
        hidden_size=32,
        layers=1,
        heads=2,
        max_visits=64,
        max_length=32,
    ),
}
HERE = [importlib.util.find_spec(name) for name in ("torch", "transformers")]
pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("safetensors"), reason="safetensors (the extra `huggingface`) is not installed"
)
parity = pytest.mark.skipif(not all(HERE), reason="torch and transformers (the extra `parity`) are not installed")


def medbert(*words) -> None:
    options = cli.parse([str(word) for word in words])
    cli.COMMANDS[words[0]][1](options)


@pytest.fixture(scope="module", params=MODELS)
def run(request, tmp_path_factory) -> Path:
    return made_checkpoint(tmp_path_factory.mktemp("runs") / "run", MODELS[request.param])


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_out_and_in_again_bit_for_bit(run, tmp_path):
    medbert("export", run, tmp_path / "out", "--min-patients", 1)
    medbert("import", tmp_path / "out", tmp_path / "again")
    before, after = load_pretrained(run), load_pretrained(tmp_path / "again")
    assert jax.tree.structure(before.params) == jax.tree.structure(after.params)
    jax.tree.map(np.testing.assert_array_equal, before.params, after.params)
    assert (after.config, after.step, after.vocabulary.codes) == (before.config, before.step, before.vocabulary.codes)
    assert after.vocabulary.titles == before.vocabulary.titles and set(after.vocabulary.patients) == {1}
    medbert("export", tmp_path / "again", tmp_path / "out again", "--min-patients", 1)
    assert contents(tmp_path / "out again") == contents(tmp_path / "out")


def test_rare_codes_stay_with_their_rows_and_biases_and_no_count_travels(tmp_path, capsys):
    counts = np.array([987_654, *[11] * 20, *[10] * 26, 3])
    run = made_checkpoint(tmp_path / "run", MODELS["paper"], made_vocabulary(patients=counts))
    medbert("export", run, tmp_path / "out")
    assert "27 codes that fewer than 11 training patients have are left out" in capsys.readouterr().out
    medbert("import", tmp_path / "out", tmp_path / "again")
    before, after = load_pretrained(run), load_pretrained(tmp_path / "again")
    assert after.vocabulary.codes == before.vocabulary.codes[:21] and set(after.vocabulary.patients) == {11}
    rows = FIRST_CODE + 21
    for part, name in (("embeddings", "code_table"), ("masked_code_head", "bias")):
        np.testing.assert_array_equal(after.params[part][name], before.params[part][name][:rows])
    words = b"".join(
        content for name, content in contents(tmp_path / "out").items() if not name.endswith("safetensors")
    )
    assert b"987654" not in words and before.vocabulary.codes[21].encode() not in words
    assert before.vocabulary.titles[21].encode() not in words.split(b"\n")[0]
    gone = np.asarray(before.params["embeddings"]["code_table"][rows]).tobytes()
    stays = np.asarray(before.params["embeddings"]["code_table"][rows - 1]).tobytes()
    weights = (tmp_path / "out" / "model.safetensors").read_bytes()
    assert stays in weights and gone not in weights
    with pytest.raises(
        ValueError, match=r"none that 1,000,000 training patients have, the most frequent one has 987,654"
    ):
        medbert("export", run, tmp_path / "none", "--min-patients", 1_000_000)


def test_an_export_replaces_an_earlier_one_and_leaves_other_files(run, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    (out / "other_heads.safetensors").write_text("old")
    medbert("export", run, out)
    assert (out / "notes.txt").read_text() == "mine" and (out / "other_heads.safetensors").read_bytes() != b"old"


def changed(field, value):
    def change(folder: Path) -> None:
        said = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps(said | {field: value}))

    return change


def fewer_lines(folder: Path) -> None:
    (folder / "vocab.txt").write_text("\n".join((folder / "vocab.txt").read_text().split("\n")[:-2]) + "\n")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda folder: (folder / "vocab.txt").unlink(), r"got .* without vocab\.txt"),
        (fewer_lines, "got 63 lines and 64 rows"),
        (changed("hidden_act", "gelu"), "got hidden_act 'gelu'"),
        (changed("tie_word_embeddings", False), "got tie_word_embeddings False"),
        (changed("num_hidden_layers", 3), r"encoder\.layer\.2\.attention\.self\.key\.bias is missing"),
        (changed("num_hidden_layers", 1), r"encoder\.layer\.1\..* is of no such model"),
        (
            changed("type_vocab_size", 9),
            r"token_type_embeddings\.weight is float32 \(64, 32\), and must be float32 \(9, 32\)",
        ),
        (changed("medbert_jax", {"version": 2}), "version"),
    ],
)
def test_what_does_not_fit_is_refused(change, words, tmp_path):
    run = made_checkpoint(tmp_path / "run", MODELS["paper"])
    medbert("export", run, tmp_path / "out", "--min-patients", 1)
    change(tmp_path / "out")
    with pytest.raises(ValueError, match=words):
        medbert("import", tmp_path / "out", tmp_path / "again")


def test_a_fine_tuned_model_is_not_exported(run, tmp_path):
    model = load_pretrained(run)
    from medbert_jax.sharing.exported import export

    rest = {name: part for name, part in model.params.items() if name != "masked_code_head"}
    with pytest.raises(ValueError, match="with its masked-code head: got one with embeddings"):
        export(replace(model, params=rest), tmp_path / "out")


@pytest.mark.parity
@parity
@pytest.mark.filterwarnings("default")
def test_transformers_gives_the_same_states_and_logits(run, tmp_path):
    import torch
    from transformers import BertForMaskedLM

    medbert("export", run, tmp_path / "out", "--min-patients", 1)
    theirs, told = BertForMaskedLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys")), told
    ours, sequences = load_pretrained(run), made_sequences(1000, seed=4)
    largest = {"states": 0.0, "logits": 0.0}
    for begin in range(0, 1000, 250):
        batch = padded_batch(sequences, np.arange(begin, begin + 250), 24)
        batch.pop("patients")
        real = batch["patient_slots"] > 0
        states = apply(ours.params, jax.tree.map(jnp.asarray, batch), config=ours.config)[0]
        found = {"states": states, "logits": masked_code_logits(ours.params, states, config=ours.config)}
        places = batch["serialization_ids" if ours.config.serialization == "rank" else "positions"]
        given = {"input_ids": batch["code_ids"], "token_type_ids": batch["visit_ids"], "position_ids": places}
        given = {name: torch.tensor(np.asarray(values, np.int64)) for name, values in given.items()}
        with torch.no_grad():
            out = theirs.eval()(**given, attention_mask=torch.tensor(real.astype(np.int64)), output_hidden_states=True)
        expected = {"states": out.hidden_states[-1], "logits": out.logits}
        for name, values in found.items():
            error = np.abs(np.asarray(values)[real] - expected[name].numpy()[real]).max()
            largest[name] = max(largest[name], float(error))
    print(largest)
    assert max(largest.values()) <= TOLERANCE
    assert float(np.asarray(states)[real].std()) > 0.1  # what is compared is not all alike


@pytest.mark.parity
@parity
@pytest.mark.filterwarnings("default")
def test_the_card_s_lines_give_what_encode_gives_and_what_torch_saves_comes_back(run, tmp_path):
    import medbert_jax

    medbert("export", run, tmp_path / "out", "--min-patients", 1)
    card = (tmp_path / "out" / "README.md").read_text()
    lines = re.search(r"```python\n(.*?)```", card, re.DOTALL)[1].replace("path/to/this/folder", str(tmp_path / "out"))
    lines = lines.replace("ICD10CM/E11.9", "ICD10CM/A03").replace("ICD10CM/I10", "ICD10CM/A01")
    said: dict = {}
    exec(lines, said)
    rows = {"patient_id": [1, 1, 1], "admit_time": ["2011-01-01", "2011-01-01", "2012-01-01"], "priority": [1, 2, 1]}
    import polars as pl

    frame = pl.DataFrame(rows | {"code": ["ICD10CM/A03", "ICD10CM/A01", "ICD10CM/I50.9"]})
    model = load_pretrained(run)
    states = model.encode(medbert_jax.sequences_from(frame, model))[0]
    np.testing.assert_allclose(states, said["states"][0].numpy(), atol=TOLERANCE)
    said["model"].save_pretrained(tmp_path / "saved")
    shutil.copy(tmp_path / "out" / "vocab.txt", tmp_path / "saved")
    medbert("import", tmp_path / "saved", tmp_path / "again")
    again = load_pretrained(tmp_path / "again").params
    for part in ("embeddings", "encoder", "masked_code_head"):
        jax.tree.map(np.testing.assert_array_equal, again[part], model.params[part])
