"""How fast is pretraining, beside torch, and what does it cost with vocabulary, codes, patients a step and corpus?

    python benchmarks/pretraining.py --torch-python ENVIRONMENT/bin/python

Made patients of the length model (mean 15 codes, up to 512), six layers of 192, one masked code each, dropout on,
float32 unless a line says otherwise. Ours is `run_pretrain.py` with its defaults (`pretraining_ours.py`); torch is
Hugging Face's BERT (`pretraining_torch.py`), for which ENVIRONMENT has the extra `parity`. Every variant is a process
of its own, and their rounds are interleaved; the ratio is that of neighbouring rounds, and there is none where others
used the machine: `side_by_side.py`. Without --torch-python there is no torch. Fifteen minutes on two quiet cores.
"""

import json
import math
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from provenance import machine
from side_by_side import interleaved, rate, ratio

HERE = Path(__file__).parent
PAPER = 82_603
SECONDS = 4.0
"""About how long a round takes, at the rates below."""
RATES = {"ours": 300, "torch": 100, "padded": 3.4}
"""Patients/s by which the steps of a round are chosen, no more."""
CURVES = {
    "vocabulary": {size: {"size": size} for size in (1_000, 10_000, 40_000, PAPER)},
    "codes per patient": {mean: {"mean-length": mean} for mean in (7.5, 15, 30)},
    "patients a step": {size: {"batch-size": size} for size in (32, 64, 128, 256, 512, 1_024)},
    "patients of the corpus": {size: {"patients": size} for size in (20_000, 200_000, 2_000_000)},
}


def steps(kind: str, batch_size: int) -> int:
    """Steps of a round."""
    return max(1, round(RATES[kind] * SECONDS / batch_size))


def ours(kind: str = "ours", *, switches: tuple[str, ...] = (), **options: float) -> list[str]:
    """The command of a variant of ours."""
    batch_size = int(options.get("batch-size", 256))
    options |= {"steps": steps(kind, batch_size)}
    given = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    return [sys.executable, str(HERE / "pretraining_ours.py"), *given, *switches]


def comparisons(batch_size: int, torch: str) -> dict[str, list[str]]:
    """The variants of a size that are interleaved; the first is what the others are compared with."""

    def theirs(*options: str, kind: str = "torch", size: int = batch_size) -> list[str]:
        script, numbers = str(HERE / "pretraining_torch.py"), (PAPER, size, steps(kind, size))
        return [torch, script, *map(str, numbers), *options]

    variants = {"ours": ours(**{"batch-size": batch_size})}
    if batch_size == 32:
        variants["ours, exactly 32"] = ours(switches=("--faithful",), **{"batch-size": 32})
        variants["ours, padded to 512"] = ours("padded", switches=("--no-packed",), **{"batch-size": 32})
    if torch:
        variants["torch"] = theirs()
    if torch and batch_size == 32:
        variants["torch, padded to 512"] = theirs("padded", kind="padded")
    if torch and batch_size == 256:
        variants["torch, bfloat16"] = theirs("bfloat16")
        # A step of 256 would take minutes; per patient more cost the same.
        variants["torch, padded to 512, 32 a step"] = theirs("padded", kind="padded", size=32)
    return variants


def compared(variants: Mapping[str, list[str]], rounds: int) -> dict:
    """Rates of all, and ratios of the first to each of the others."""
    found = interleaved(variants, rounds=rounds)
    first, *others = found
    return {
        "variants": {
            name: one["facts"] | _useful_share(one["facts"], rate(one["rounds"])) | {"peak_gib": one["peak_gib"]}
            for name, one in found.items()
        },
        "ratios": {f"{first} / {name}": ratio(found[first]["rounds"], found[name]["rounds"]) for name in others},
    }


def _useful_share(facts: Mapping, found: dict) -> dict:
    """The rates, and the share of the device's products that useful ones are (`useful_work.py`), where that is told."""
    quiet = found.get("patients_per_s_quiet")
    if "product_flop_per_s" not in facts or not quiet:
        return found
    return found | {"useful_share": quiet["median"] * facts["useful_flop_per_patient"] / facts["product_flop_per_s"]}


def slope(cost: Mapping[float, float]) -> float:
    """Of a line through the logarithms: 0 is a cost that does not change, 1 one that doubles with its cause."""
    return float(np.polyfit([math.log(at) for at in cost], [math.log(value) for value in cost.values()], 1)[0])


def main(
    torch_python: str = "",
    out: Path = HERE / "results" / "pretraining.json",
    rounds: int = 5,
    sizes: tuple[int, ...] = (32, 256, 1_024),
    dispatches: tuple[int, ...] = (1, 5),
    curves: tuple[Literal["vocabulary", "codes per patient", "patients a step", "patients of the corpus"], ...] = (
        "vocabulary",
        "codes per patient",
        "patients a step",
        "patients of the corpus",
    ),
) -> None:
    """Measure, and write the JSON after every part, so that a run that is cut short leaves what it has.

    Args:
        torch_python: interpreter that has torch and transformers; empty for none.
        out: where the figures go; parts that are not measured stay as they are there.
        rounds: of every variant.
        sizes: patients a step at which torch is compared.
        dispatches: most steps of a dispatch, each beside the default.
        curves: what the cost is followed along; processor time per patient, which suffers least from others.
    """
    record = json.loads(out.read_text()) if out.exists() else {}
    out.parent.mkdir(parents=True, exist_ok=True)

    def note(part: str, name: str, found: dict) -> None:
        record["machine"] = machine()
        record.setdefault(part, {})[name] = found
        out.write_text(json.dumps(record, indent=1) + "\n")
        print(name, json.dumps(found.get("ratios", found), indent=1), flush=True)

    for size in sizes:
        note("beside torch", f"{size} patients a step", compared(comparisons(size, torch_python), rounds))
    if dispatches:
        variants = {"default": ours()} | {str(most): ours(**{"steps-per-dispatch": most}) for most in dispatches}
        note("most steps of a dispatch", "256 patients a step", compared(variants, rounds))
    for name in curves:
        # One after the other: all at once would not fit into the memory of a small machine.
        found = {
            at: rate(interleaved({name: ours(**options)}, rounds=3)[name]["rounds"])
            for at, options in CURVES[name].items()
        }
        cost = {at: one["cpu_ms_per_patient"]["median"] for at, one in found.items()}
        note("curves", name, {"rates": found, "slope of processor time": slope(cost)})


if __name__ == "__main__":
    tyro.cli(main)
