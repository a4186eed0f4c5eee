"""What holds in every test: shapes are those that the signatures say, and no array takes a rank by surprise."""

import contextlib
import os
import signal

import pytest
from jaxtyping import install_import_hook

from medbert_jax.disk.program_folder import program_folder

# By the environment, so that tests without jax do not pay for it, and programs that tests start obey too.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
# Tables of tests are small, and the workers beside this one have the other cores.
os.environ.setdefault("POLARS_MAX_THREADS", "1")

# Several tests, workers and child processes compile the same programs: once in all of them, and in the next run, of
# any checkout.
with contextlib.suppress(OSError):
    if programs := program_folder():
        os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(programs))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")

# Before anything imports these packages: their functions are checked as they are defined.
install_import_hook(
    ["medbert_jax.models", "medbert_jax.training", "medbert_jax.visualization"], "shape_checker.checked"
)


@pytest.fixture
def keyboard():
    """Ctrl-C raises KeyboardInterrupt, as in a shell and a notebook, whoever started these tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)
