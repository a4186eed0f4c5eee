"""What a result file says of how it came about."""

import os
import platform
from collections.abc import Iterable
from pathlib import Path

import jax

from medbert_jax.simulation.parameters import Parameters
from medbert_jax.training.progress import versions


def how_simulated(assumptions: Iterable[str]) -> list[str]:
    """Of what a source says of itself: that it is simulated, and its site, world, seed and parameters."""
    return [line for line in assumptions if "imulated" in line or line.startswith("Site")]


def simulated_by(parameters: Parameters) -> dict:
    """What simulated lives follow from."""
    from medbert_jax.simulation.identity import ENGINE  # brings polars, which not every benchmark needs

    return {"engine": ENGINE, "parameters": parameters.hash}


def machine() -> dict:
    """What the figures were measured on."""
    device = jax.devices()[0]
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "")
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "cpu": cpu or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions(),
    }
