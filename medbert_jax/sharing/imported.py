"""A folder in the form of Hugging Face's BertForMaskedLM → a run directory."""

from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any, TypedDict

import jax
import numpy as np

from medbert_jax.data.vocabulary import FIRST_CODE
from medbert_jax.disk.stored_json import check_form, read_object
from medbert_jax.disk.versions import refuse_newer
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.med_bert import init
from medbert_jax.sharing.exported import (
    CODES,
    CONFIG,
    OTHER_WEIGHTS,
    OURS,
    RECIPE,
    TITLES,
    VERSION,
    WEIGHTS,
    least_known,
)
from medbert_jax.sharing.hugging_face import OTHER_PARTS, bert_name, model_config, turned
from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.run_directory import RunDirectory
from medbert_jax.training.stored_config import with_defaults

_CURE = "export the model again"


class _Own(TypedDict, total=False):
    """What `medbert export` adds to a BertConfig."""

    version: int
    model: dict[str, Any]
    step: int
    minimum_patients: int
    recipe: dict[str, Any]


def import_run(source: str | Path, out: str | Path) -> ModelConfig:
    """Make the run directory, and return its architecture. Parts that the folder lacks, as prolonged stays, it lacks.

    Raises ValueError for files that are missing or fit one another not, every fault listed; RunDirectoryError or
    CheckpointError where another run lies; ImportError without `safetensors`.
    """
    from safetensors.numpy import load as from_safetensors  # of the extra `huggingface`

    source = Path(source)
    if missing := [name for name in (CONFIG, WEIGHTS, CODES) if not (source / name).is_file()]:
        raise ValueError(
            f"an import needs {CONFIG}, {WEIGHTS} and {CODES}: got {source} without {', '.join(missing)}; give the"
            " folder that `medbert export` wrote"
        )
    said = read_object(source / CONFIG, cure=_CURE)
    own = said.get(OURS, {})
    check_form(own, _Own, source / CONFIG, cure=_CURE)
    refuse_newer(str(source / CONFIG), own.get("version", VERSION), VERSION)
    known = {field.name for field in fields(ModelConfig)}
    config = model_config(said, {name: value for name, value in own.get("model", {}).items() if name in known})
    codes = (source / CODES).read_text(encoding="utf-8").removesuffix("\n").split("\n")
    vocabulary = least_known(codes, _titles(source, codes), own.get("minimum_patients", 1))
    weights = from_safetensors((source / WEIGHTS).read_bytes())
    others = from_safetensors((source / OTHER_WEIGHTS).read_bytes()) if (source / OTHER_WEIGHTS).is_file() else {}
    params = _parameters(config, weights, others)
    if vocabulary.size != config.vocabulary_size:
        raise ValueError(
            f"{CODES} must have a line for each row of the table of codes: got {vocabulary.size:,} lines and"
            f" {config.vocabulary_size:,} rows in {source}; {_CURE}"
        )
    run_config = {"model": asdict(config)}
    if recipe := own.get("recipe"):
        # All that is left has a default that claims nothing of the training.
        run_config = with_defaults(run_config | {name: recipe[name] for name in RECIPE if name in recipe})
    step = own.get("step", 1)
    with RunDirectory.create_or_open(
        out, config=run_config, vocabulary=vocabulary, card={"imported": f"{step:,} steps were trained elsewhere"}
    ) as run:
        save_step(run, step, params=params, opt_state=None, progress={"step": step})
    return config


def _titles(source: Path, codes: list[str]) -> list[str]:
    """Of every code below the reserved ones; empty where the folder has none."""
    found: dict[str, str] = {}
    if (source / TITLES).is_file():
        lines = (source / TITLES).read_text(encoding="utf-8").removesuffix("\n").split("\n")[1:]
        found = {code: title for code, _, title in (line.partition("\t") for line in lines)}
    return [found.get(code, "") for code in codes[FIRST_CODE:]]


def _parameters(config: ModelConfig, weights: dict[str, np.ndarray], others: dict[str, np.ndarray]) -> dict:
    """Our parameters; ValueError with everything that is missing, of another shape, or unknown."""
    shapes = jax.eval_shape(partial(init, config), jax.random.key(0))
    # The decoder is the table and its bias, whether or not they were written twice.
    tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
    faults, used, params = [], set(tied), {}
    for keys, leaf in jax.tree_util.tree_leaves_with_path(shapes):
        path = "/".join(key.key for key in keys)
        name = bert_name(path)
        if name is None and keys[0].key in OTHER_PARTS and not any(one.startswith(keys[0].key) for one in others):
            continue
        values = others.get(path) if name is None else weights.get(name)
        used.add(name or path)
        if values is None:
            faults.append(f"{name or path} is missing")
            continue
        values = values if name is None else turned(path, values)
        if values.shape != leaf.shape or values.dtype != leaf.dtype:
            faults.append(f"{name or path} is {values.dtype} {values.shape}, and must be {leaf.dtype} {leaf.shape}")
        place = params
        for key in keys[:-1]:
            place = place.setdefault(key.key, {})
        place[keys[-1].key] = values
    faults += [f"{name} is of no such model" for name in sorted({*weights, *others} - used)]
    if faults:
        raise ValueError(
            f"the parameters must be those of the model in {CONFIG}, float32: got {len(faults)} fault(s):\n  - "
            + "\n  - ".join(faults[:20])
            + f"\n{_CURE}"
        )
    return params
