"""A pretrained model → a folder that Hugging Face's transformers loads, with codes and titles, without counts."""

import re
from dataclasses import asdict, replace
from pathlib import Path

import jax
import numpy as np

from medbert_jax.data.vocabulary import FIRST_CODE, RESERVED, Vocabulary
from medbert_jax.disk.replaced_folder import replaced
from medbert_jax.disk.whole_files import canonical_json, write_whole
from medbert_jax.models.med_bert import vocabulary_axes
from medbert_jax.sharing.card import card
from medbert_jax.sharing.hugging_face import bert_config, bert_name, turned
from medbert_jax.training.pretrained import Pretrained

CONFIG, WEIGHTS, OTHER_WEIGHTS, CODES, TITLES, CARD = (
    "config.json", "model.safetensors", "other_heads.safetensors", "vocab.txt", "titles.tsv", "README.md",
)  # fmt: skip
OURS = "medbert_jax"
"""Field of config.json for what BERT has no field for; transformers hands it on."""
VERSION = 1
RECIPE = ("dataset_preset", "too_long", "steps", "epochs", "rows", "masking", "tasks", "optimizer", "warmup_share",
          "seed", "exchange_codes")  # fmt: skip
"""Fields of a PretrainConfig that say how it was trained; those that say where, on what and from which key stay."""
_WRITTEN = re.compile(r"config\.json|(?:model|other_heads)\.safetensors|vocab\.txt|titles\.tsv|README\.md")


def export(model: Pretrained, out: str | Path, *, minimum_patients: int = 11) -> int:
    """Write the folder, and return how many codes it leaves out: those that fewer training patients have.

    Raises ValueError for a model without its masked-code head, and where no code is left; ImportError without
    `safetensors`.
    """
    from safetensors.numpy import save as as_safetensors  # of the extra `huggingface`

    if "masked_code_head" not in model.params:
        raise ValueError(
            "what is exported is a pretrained model, with its masked-code head: got one with"
            f" {', '.join(model.params)}; give the run directory of the pretraining"
        )
    kept = np.flatnonzero(np.concatenate([np.full(FIRST_CODE, True), model.vocabulary.patients >= minimum_patients]))
    if len(kept) == FIRST_CODE:
        raise ValueError(
            f"a model must have codes: got none that {minimum_patients:,} training patients have, the most frequent one"
            f" has {max(model.vocabulary.patients, default=0):,}; lower --min-patients, where that may leave the site"
        )
    config = replace(model.config, vocabulary_size=len(kept))
    weights, others = {}, {}
    axes = dict(jax.tree_util.tree_leaves_with_path(vocabulary_axes(model.config)))
    for keys, leaf in jax.tree_util.tree_leaves_with_path(model.params):
        path, values, axis = "/".join(key.key for key in keys), np.asarray(leaf), axes[keys]
        values = values if axis < 0 else values.take(kept, axis)
        name = bert_name(path)
        if name is None:
            others[path] = values
        else:
            weights[name] = turned(path, values)
    own = {
        "version": VERSION,
        "model": asdict(config),
        "step": model.step,
        "minimum_patients": minimum_patients,
        "recipe": {name: model.run_config[name] for name in RECIPE},
    }
    codes = [model.vocabulary.code(code_id) for code_id in kept.tolist()]
    titles = [model.vocabulary.titles[code_id - FIRST_CODE] for code_id in kept[FIRST_CODE:].tolist()]
    with replaced(out, _WRITTEN) as folder:
        write_whole(folder / WEIGHTS, as_safetensors(weights, {"format": "pt"}))
        if others:
            write_whole(folder / OTHER_WEIGHTS, as_safetensors(others, {"format": "np"}))
        write_whole(folder / CODES, "".join(f"{code}\n" for code in codes))
        rows = zip(codes[FIRST_CODE:], titles, strict=True)
        write_whole(folder / TITLES, "code\ttitle\n" + "".join(f"{code}\t{title}\n" for code, title in rows))
        write_whole(folder / CARD, card(config, len(codes) - FIRST_CODE, minimum_patients))
        write_whole(folder / CONFIG, canonical_json(bert_config(config) | {OURS: own}))
    return model.vocabulary.size - len(kept)


def least_known(codes: list[str], titles: list[str], minimum_patients: int) -> Vocabulary:
    """A vocabulary whose counts are the least that an export says of them. `codes` begin with the reserved names."""
    if tuple(codes[:FIRST_CODE]) != RESERVED:
        raise ValueError(
            f"{CODES} must begin with the {FIRST_CODE} reserved names, from {RESERVED[0]} on: got"
            f" {', '.join(codes[:3]) or 'nothing'}; take a folder that `medbert export` wrote"
        )
    codes = codes[FIRST_CODE:]
    return Vocabulary(tuple(codes), np.full(len(codes), minimum_patients, np.int64), tuple(titles))
