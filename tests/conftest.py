"""What holds in every test: shapes are those that the signatures say, and no array takes a rank by surprise."""

import os

from jaxtyping import install_import_hook

# By the environment, so that tests without jax do not pay for it, and programs that tests start obey too.
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"

# Before anything imports these packages: their functions are checked as they are defined.
install_import_hook(["medbert_jax.models", "medbert_jax.training"], "shape_checker.checked")
