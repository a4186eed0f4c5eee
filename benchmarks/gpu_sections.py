"""A section of `gpu.py`, in a process of its own: what it finds, as `timed_sections.py` reads it.

    python benchmarks/gpu_sections.py --name exactness

Patients are made, of the length model, with V = 82,603 and one masked code each; products are in bfloat16, the corpus
is on the device, and training is the program and the loop of `run_pretrain.py`, without validation and checkpoints.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import tyro
from side_by_side import interleaved, rate

HERE = Path(__file__).parent
STEPS = 50
"""Of a program at most, by default."""
SIZES = (32, 256, 1024, 4096, 8192)
NO_REPLICATES = "not built: fine-tuning trains one replicate at a time"


class LeftOutError(Exception):
    """A section that this machine cannot do, and why."""


@dataclass(frozen=True)
class Scale:
    """How large everything is."""

    vocabulary: int = 82_603
    layers: int = 6
    width: int = 192
    batch_size: int = 0
    """Patients a step, whatever a section is called; 0: as it is called."""
    dispatched_sizes: tuple[int, ...] = (32, 4096)
    """Patients a step, of the section about dispatches."""
    dispatches: tuple[int, ...] = (1, 100, 10)
    """Its steps of a program, at most."""
    codes: float = 15.0
    """Of a patient, on average."""
    patients: int = 2_000_000
    sustained_patients: int = 28_500_000
    seconds: float = 8.0
    """Of training that is timed."""
    sustained_seconds: float = 60.0
    exact_patients: int = 400
    golden_lengths: tuple[int, ...] = ()
    """Of the golden inputs; empty: all."""
    product_size: int = 8192
    """Rows of the matrices that say what the device can do."""
    cohort: int = 8_000
    cohort_codes: float = 43.0
    torch_sizes: tuple[tuple[int, int], ...] = ((32, 32), (1024, 256), (4096, 512))
    """Patients a step, and of a micro-batch."""


FULL = Scale()
# Compiling is what takes time on a CPU: one program serves nearly all sections, and patients are so short that it has
# rows of one length; exactness has both.
REHEARSAL = Scale(
    vocabulary=2_000,
    layers=1,
    width=48,
    batch_size=32,
    dispatched_sizes=(32,),
    dispatches=(1, STEPS),
    codes=4.0,
    patients=4_000,
    sustained_patients=4_000,
    seconds=0.5,
    sustained_seconds=1.0,
    exact_patients=60,
    golden_lengths=(7,),
    product_size=512,
    cohort=64,
    cohort_codes=8.0,
    torch_sizes=((8, 4),),
)


def exact(scale: Scale) -> Iterator[tuple[str, object]]:
    """Whether what is right elsewhere is right here."""
    from gpu_exactness import exactness, make_bert
    from provenance import machine

    yield "machine", machine()
    yield from exactness(
        _model(scale, vocabulary=2_000), scale.exact_patients, scale.golden_lengths or make_bert.LENGTHS
    )


def steps(
    scale: Scale, *, batch_size: int, batching: str = "rows", sustained: bool = False
) -> Iterator[tuple[str, object]]:
    """The rate of training, the share of the device's products that it is, and memory."""
    from length_model import length_model

    from medbert_jax.data.row_plan import RowsConfig

    patients, seconds = (
        (scale.sustained_patients, scale.sustained_seconds) if sustained else (scale.patients, scale.seconds)
    )
    rows = RowsConfig(batching=batching, batch_size=scale.batch_size or batch_size)
    made = length_model(patients, scale.vocabulary, mean=scale.codes)
    yield "patients", patients
    yield from _trained(scale, made, rows, seconds)


def dispatches(scale: Scale) -> Iterator[tuple[str, object]]:
    """How many steps in a program are worth it: a program of at most so many each."""
    from length_model import length_model

    from medbert_jax.data.row_plan import RowsConfig

    made = length_model(scale.patients, scale.vocabulary, mean=scale.codes)
    for batch_size in scale.dispatched_sizes:
        for most in scale.dispatches:
            rows = RowsConfig(batch_size=scale.batch_size or batch_size)
            found = dict(_trained(scale, made, rows, scale.seconds / 2, most=most))
            yield f"{batch_size:,} patients a step, {most} steps a dispatch", found


def torch(scale: Scale, python: str) -> Iterator[tuple[str, object]]:
    """Hugging Face's BERT on this device, micro-batches as large as pays there."""
    is_there = "from importlib.util import find_spec as there; there('transformers') or exit('no transformers'); "
    asked = [python, "-c", is_there + "import torch; print(torch.cuda.is_available())"]
    found = subprocess.run(asked, capture_output=True, text=True)
    if found.returncode:
        said = found.stderr.strip().splitlines() or [f"{python} ended with {found.returncode}"]
        raise LeftOutError(f"torch and transformers are not there: {said[-1]}")
    device = "cuda" if found.stdout.strip() == "True" else "cpu"
    if device == "cpu" and scale is FULL:
        raise LeftOutError("torch is there, but sees no CUDA device")
    for batch_size, micro_batch in scale.torch_sizes:
        numbers = scale.vocabulary, batch_size, max(1, 4096 // batch_size) if scale is FULL else 1
        options = ["bfloat16", device, f"micro={micro_batch}"]
        found = _rounds([python, str(HERE / "pretraining_torch.py"), *map(str, numbers), *options])
        yield f"{batch_size:,} patients a step, micro-batches of {micro_batch}", found


def finetuning(scale: Scale) -> Iterator[tuple[str, object]]:
    """An epoch of a cohort with Bi-GRU, 32 patients a step, and a pass of predictions; float32, as it is by default."""
    for kind in ("train", "predict"):
        script = str(HERE / "finetuning_variants.py")
        command = [sys.executable, script, "--kind", kind, "--patients", str(scale.cohort)]
        command += ["--codes", str(scale.cohort_codes), "--layers", str(scale.layers)]
        yield f"{kind}, 1 replicate", _rounds(command)
    yield "train, 10 replicates", NO_REPLICATES


SECTIONS: dict[str, Callable[..., Iterator[tuple[str, object]]]] = {
    "exactness": exact,
    **{f"{size:,} patients a step": partial(steps, batch_size=size) for size in SIZES},
    "32 exactly": partial(steps, batch_size=32, batching="patients"),
    "a minute on 28.5 million patients": partial(steps, batch_size=4096, sustained=True),
    "torch": torch,
    "fine-tuning": finetuning,
    "steps a dispatch": dispatches,
}
"""In the order of their weight."""


def _model(scale: Scale, vocabulary: int | None = None):
    from medbert_jax.models.config import preset

    sizes = {"layers": scale.layers, "hidden_size": scale.width}
    return replace(preset("paper", vocabulary or scale.vocabulary), compute_dtype="bfloat16", **sizes)


def _trained(scale: Scale, made, rows, seconds: float, *, most: int = STEPS) -> Iterator[tuple[str, object]]:
    """Figures of one program; the memory of the device is that of this process so far."""
    import jax
    from step_rate import timed_step
    from useful_work import product_rate, useful_flops

    from medbert_jax.training.corpus import CorpusConfig
    from medbert_jax.training.masking import MaskingConfig

    masking = MaskingConfig()
    # A dispatch is to have all its steps.
    pace = CorpusConfig(placement="replicated", steps_per_dispatch=most, dispatch_seconds=min(2.0, seconds / 2))
    one = timed_step(made, _model(scale), rows, masking, pace)
    yield "compile_s", one.compile_s
    found = one.train_for(seconds)
    one.source.close()
    yield from found.items()
    yield from {"fill": one.fill, "mean_codes": float(made.lengths.mean())}.items()
    peak = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    yield "peak_device_gib", peak / 2**30 if peak else None
    yield "peak_host_gib", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    useful = float(useful_flops(made.lengths, _model(scale), masking).mean())
    reached, ceiling = useful * found["patients_per_s"], product_rate("bfloat16", scale.product_size)
    yield "useful_mflop_per_patient", useful / 1e6
    yield "useful_tflop_per_s", reached / 1e12
    yield f"product_of_{scale.product_size}_rows_tflop_per_s", ceiling / 1e12
    yield "mfu", reached / ceiling


def _rounds(command: list[str]) -> dict:
    """Three rounds of a variant that has the device to itself."""
    (found,) = interleaved({"": command}, rounds=3).values()
    return found["facts"] | rate(found["rounds"]) | {"peak_host_gib": found["peak_gib"]}


def main(name: str, torch_python: str = sys.executable, rehearse: bool = False) -> None:
    """Do one section.

    Args:
        name: which one.
        torch_python: interpreter that may have torch and transformers.
        rehearse: small numbers.
    """
    out, sys.stdout = sys.stdout, sys.stderr  # what a library prints is no figure

    def tell(**said: object) -> None:
        print(json.dumps(said), file=out, flush=True)

    if name not in SECTIONS:
        raise ValueError(f"a section must be one of {', '.join(SECTIONS)}: got {name!r}; choose one of them")
    scale = REHEARSAL if rehearse else FULL
    tell(scale=asdict(scale))
    given = {"python": torch_python} if name == "torch" else {}
    try:
        for figure, found in SECTIONS[name](scale, **given):
            tell(figures={figure: found})
    except LeftOutError as why:
        tell(left_out=str(why))


if __name__ == "__main__":
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
    tyro.cli(main)
