"""Products of a lowered program, counted from its text."""

import math
import re

DOT = re.compile(r"stablehlo\.dot_general .*?: \((.*?), (.*?)\) -> tensor<(.*?)>")
CONTRACTED = re.compile(r"contracting_dims = \[([\d, ]*)\]")


def flops_by_type(text: str) -> dict[str, float]:
    """Floating-point operations of all products of a lowered program, by the types of what they multiply."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if not (match := DOT.search(line)):
            continue
        (*shape, one), (*_, other) = (
            operand.removeprefix("tensor<").rstrip(">").split("x") for operand in match.groups()[:2]
        )
        *result, _ = match[3].split("x")
        contracted = CONTRACTED.search(line)
        assert contracted, line
        sizes = [int(shape[int(axis)]) for axis in contracted[1].split(",") if axis.strip()]
        kind = f"{one} x {other}"
        found[kind] = found.get(kind, 0) + 2 * math.prod(sizes) * math.prod(int(size) for size in result)
    return found
