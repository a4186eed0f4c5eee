"""Steps written while the training goes on: the devices do not wait for the disk."""

from concurrent.futures import Future, ThreadPoolExecutor

import jax
import jax.numpy as jnp

from medbert_jax.training.checkpointing import save_step
from medbert_jax.training.run_directory import RunDirectory


class StepWriter:
    """Saves one step at a time beside the training, each as `save_step` does; a `with` block ends when it is done.

    What is saved is copied on the devices first, so the state may be given away. Several processes save in step with
    each other, at once: their agreement must not cross that of the training.
    """

    def __init__(self, run: RunDirectory):
        self._run = run
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="medbert-save")
        self._under_way: Future | None = None

    def __enter__(self) -> "StepWriter":
        """Nothing is begun yet."""
        return self

    def __exit__(self, kind, fault, traceback) -> None:
        """Wait for the save that is under way; its error comes out, unless another one does."""
        try:
            self.wait()
        except Exception:
            if fault is None:
                raise
        finally:
            self._thread.shutdown()

    def begin(self, step: int, *, params: dict, opt_state: object, progress: dict) -> None:
        """Begin to save a step, after the one before it is committed. Raises what went wrong with that."""
        self.wait()
        if jax.process_count() > 1:
            save_step(self._run, step, params=params, opt_state=opt_state, progress=progress)
            return
        params, opt_state = jax.block_until_ready(jax.tree.map(jnp.copy, (params, opt_state)))
        self._under_way = self._thread.submit(
            save_step, self._run, step, params=params, opt_state=opt_state, progress=progress
        )

    def check(self) -> None:
        """Raise what went wrong with a save that has ended, so that a full disk does not wait for the next one."""
        if self._under_way and self._under_way.done():
            self.wait()

    def wait(self) -> None:
        """Let the save that is under way be committed."""
        under_way, self._under_way = self._under_way, None
        if under_way:
            under_way.result()
