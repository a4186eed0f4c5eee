"""What is hashed of a configuration: ids of results outlive the fields that come later."""

import json
from dataclasses import asdict, dataclass, field, fields, is_dataclass, make_dataclass, replace
from types import SimpleNamespace

import pytest

from medbert_jax.data.serialization import SerializationConfig
from medbert_jax.evaluation.provenance import identify
from medbert_jax.evaluation.results import run_id
from medbert_jax.experiments.grid import BaselineConfig
from medbert_jax.identity import FIRST, INTRODUCED, NO_IDENTITY, identity, identity_of
from medbert_jax.models.config import ModelConfig
from medbert_jax.models.finetune_heads import HeadConfig
from medbert_jax.training.config import FinetuneConfig
from medbert_jax.training.optimizer import OptimizerConfig
from medbert_jax.training.sampling import SamplingConfig
from medbert_jax.training.sharding import MeshConfig

KINDS = (FinetuneConfig, HeadConfig, OptimizerConfig, MeshConfig, ModelConfig, BaselineConfig, SerializationConfig)
COHORT = SimpleNamespace(metadata={"dataset_hash": "d" * 64})
RUN = FinetuneConfig(dataset="a", checkpoint="b", results="c", cache_dir="x", run="y")
MODEL = json.loads(json.dumps(asdict(ModelConfig(vocabulary_size=800))))


def id_of(run, model=MODEL) -> str:
    checkpoint = SimpleNamespace(
        config={"model": model}, fingerprint="step 6, manifest 00", check_cohort=lambda _: None
    )
    return run_id(identify(run, COHORT, lambda path: checkpoint), run.replicate)


@pytest.mark.parametrize(
    ("run", "known_as"),
    [
        (RUN, "63a26ebe1d8f24f4"),
        (replace(RUN, backbone="untrained"), "2dc672b41f984da6"),
        (replace(RUN, head=HeadConfig("bi_gru", 64), train_size=300, replicate=2, batch_size=7), "2b96f0b2af09a86c"),
        (BaselineConfig("a", "c", "e", "age", 300, 1), "ffec4cdb90f76117"),
    ],
)
def test_ids_are_those_of_version_0_1_0(run, known_as):
    assert id_of(run) == known_as


def later(kind: type, **new) -> type:
    """The class as a later version has it: one more field."""
    added = [(name, type(value), field(default=value)) for name, value in new.items()]
    return make_dataclass(kind.__name__, added, bases=(kind,), frozen=True)


def rebuilt(kind: type, old, **values):
    return kind(**{each.name: getattr(old, each.name) for each in fields(old)} | values)


def test_a_field_that_is_new_and_stands_at_its_default_changes_no_id():
    kind, optimizer = later(FinetuneConfig, resume_every=0), later(OptimizerConfig, nesterov=False)
    run = rebuilt(kind, RUN, optimizer=rebuilt(optimizer, RUN.optimizer))
    assert run.resume_every == 0 and run.optimizer.nesterov is False and type(run).__name__ == "FinetuneConfig"
    assert id_of(run) == id_of(RUN)
    others = [replace(run, resume_every=5), replace(run, optimizer=replace(run.optimizer, nesterov=True))]
    assert len({id_of(RUN), *map(id_of, others)}) == 3


def test_an_architecture_of_a_new_field_changes_no_id(monkeypatch):
    untrained = replace(RUN, backbone="untrained")
    monkeypatch.setattr("medbert_jax.evaluation.provenance.ModelConfig", later(ModelConfig, rotary=False))
    assert id_of(untrained, MODEL | {"rotary": False}) == id_of(untrained)  # as `read_config` fills it in
    assert id_of(untrained, MODEL | {"rotary": True}) != id_of(untrained)


def test_a_new_baseline_field_and_a_nested_configuration_change_no_id():
    baseline = BaselineConfig("a", "c")
    assert id_of(rebuilt(later(BaselineConfig, penalty="l2"), baseline)) == id_of(baseline)
    nested = later(FinetuneConfig, mesh_of_heads=MeshConfig())
    assert id_of(rebuilt(nested, RUN)) == id_of(RUN)
    assert id_of(rebuilt(nested, RUN, mesh_of_heads=MeshConfig(data=2))) != id_of(RUN)


def test_a_field_that_is_of_the_first_version_is_hashed_at_its_default_too():
    for kind in KINDS:
        assert FIRST[kind.__name__] <= identity(kind()).keys() == FIRST[kind.__name__]


def test_a_default_that_changes_says_which_one_it_came_with():
    @dataclass(frozen=True)
    class FinetuneConfig(RUN.__class__):
        resume_every: int = field(default=10, metadata={INTRODUCED: 0})
        cache: str = field(default="", metadata=NO_IDENTITY)

    assert id_of(rebuilt(FinetuneConfig, RUN, resume_every=0)) == id_of(RUN)
    assert id_of(rebuilt(FinetuneConfig, RUN)) != id_of(RUN)
    assert id_of(rebuilt(FinetuneConfig, RUN, resume_every=0, cache="there")) == id_of(RUN)


@dataclass(frozen=True)
class Mine:
    """A configuration of somebody who uses the package."""

    dataset: str
    depth: int = 3
    parts: tuple = ()


def test_a_configuration_of_ones_own_is_hashed_whole_but_for_what_it_declares():
    assert identity(Mine("a", parts=(HeadConfig(),))) == {"dataset": "a", "depth": 3, "parts": [asdict(HeadConfig())]}
    declared = make_dataclass(
        "Mine", [("width", int, field(default=1, metadata={INTRODUCED: 1}))], bases=(Mine,), frozen=True
    )
    assert identity(declared("a")) == identity(Mine("a")) != identity(declared("a", width=2))
    assert identity_of(Mine, {"depth": 3, "strange": 1}) == {"depth": 3, "strange": 1}


def test_defaults_of_later_fields_are_known():
    """A default that changes without a word would give two runs one id: note a new field here, and where its default
    changes give it `metadata={INTRODUCED: old}` and leave the line.
    """
    introduced = {}
    for kind in KINDS:
        for each in fields(kind):
            if each.name not in FIRST[kind.__name__] and each.metadata.get("identity", True):
                value = getattr(kind(), each.name)
                plain = asdict(value) if is_dataclass(value) else value
                introduced[f"{kind.__name__}.{each.name}"] = each.metadata.get(INTRODUCED, plain)
    assert introduced == {
        "FinetuneConfig.vectors": "",
        "FinetuneConfig.sampling": asdict(SamplingConfig()),
        "BaselineConfig.sampling": asdict(SamplingConfig()),
        "BaselineConfig.C": 0.0,
        "BaselineConfig.min_samples_leaf": 1,
        "BaselineConfig.learning_rate": 0.05,
    }
