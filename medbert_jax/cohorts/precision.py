"""How exactly an AUROC can be known from so many cases and controls."""

import math

_NORMAL_95 = 1.959964


def auroc_half_width(cases: int, controls: int, auroc: float = 0.8) -> float:
    """Half the width of the 95 % interval of an AUROC, before anything is measured (Hanley, McNeil 1982).

    Infinite without a case or a control.
    """
    if not cases or not controls:
        return math.inf
    two_cases, two_controls = auroc / (2 - auroc), 2 * auroc**2 / (1 + auroc)
    variance = auroc * (1 - auroc)
    variance += (cases - 1) * (two_cases - auroc**2) + (controls - 1) * (two_controls - auroc**2)
    return _NORMAL_95 * math.sqrt(variance / (cases * controls))
