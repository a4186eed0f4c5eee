"""Models that were trained once for all tests of the folder."""

import jax
import pytest
from prediction.made_prediction import Trained, trained_in


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    """Compiled in half the time: the programs are small."""
    jax.config.update("jax_disable_most_optimizations", True)
    made = trained_in(tmp_path_factory.mktemp("trained"))
    jax.config.update("jax_disable_most_optimizations", False)
    return made


@pytest.fixture(autouse=True)
def quick_compilation():
    """As the models were compiled: other programs give other last bits."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)
