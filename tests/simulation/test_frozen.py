"""Version 1 of the simulated health system stays what its results were measured on."""

import hashlib

from medbert_jax.simulation.parameters import FILES, FOLDER

FROZEN = {
    "v1.yaml": "3805170bd3fbf87dfbe119aa4122729f768f833a6fa5df9a7b7dcb73b8578f9a",
    "v1_coding.yaml": "a9a4351287c4f3f55c5a6c965fd6db551618666919208857bd8723a25bfb9eb8",
}


def test_the_parameters_are_those_of_version_1():
    """A change is version 2, in files of its own: docs/simulation.md says under which conditions."""
    text = {name: (FOLDER / name).read_bytes().replace(b"\r\n", b"\n") for name in FILES}
    assert {name: hashlib.sha256(one).hexdigest() for name, one in text.items()} == FROZEN
