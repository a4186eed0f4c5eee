"""The parameters are parsed once: that takes longer than most of these tests."""

import functools
import pickle
from types import SimpleNamespace

import pytest
import yaml

from medbert_jax.simulation import parameters


@functools.cache
def parsed(text: bytes, loader) -> bytes:
    return pickle.dumps(yaml.load(text, loader))


@pytest.fixture(scope="module", autouse=True)
def parsed_once():
    def load(text, loader):
        return pickle.loads(parsed(text, loader))  # a copy for each who asks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            parameters, "yaml", SimpleNamespace(load=load, CSafeLoader=yaml.CSafeLoader, SafeLoader=yaml.SafeLoader)
        )
        yield
