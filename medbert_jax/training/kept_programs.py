"""Programs that were compiled are kept on disk, so that the next run of the same shapes starts with them."""

import jax

from medbert_jax.disk.program_folder import NAMES_IT, program_folder
from medbert_jax.training.progress import say

_WORTH_KEEPING = 0.1
"""Seconds of compilation: hundreds of smaller programs are compiled about as fast as they are read."""


def keep_programs() -> None:
    """From now on what JAX compiles in this process is kept in the user's cache, and found there; said in one line.

    MEDBERT_CACHE names another folder, or is `off`; where JAX has a folder already (JAX_COMPILATION_CACHE_DIR, or an
    earlier call) that one stays. A folder that cannot be written is told, and nothing is kept. Several processes may
    share it: a program that one of them has half written, or that is damaged, is compiled anew.
    """
    if jax.config.jax_compilation_cache_dir:  # ty: ignore[missing-attribute]  # set where the module is loaded
        return
    try:
        folder = program_folder()
    except OSError as error:
        say(
            f"compiled programs are kept in a folder that can be written: got '{error}', so nothing is kept;"
            f" {NAMES_IT}=FOLDER names another, {NAMES_IT}=off keeps none"
        )
        return
    if folder is None:
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _WORTH_KEEPING)
    say(f"compiled programs are kept in {folder}; {NAMES_IT}=FOLDER names another, {NAMES_IT}=off keeps none")
