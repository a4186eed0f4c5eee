"""Which code stands for a condition: weighted draws by code system, stage, site and the coder's habits."""

from dataclasses import dataclass

import numpy as np

from medbert_jax.simulation.parameters import Parameters

SYSTEMS = ("ICD9CM", "ICD10CM")


@dataclass(frozen=True)
class CodeBook:
    """Every way to code every condition, flat. A group is one list of codes with weights."""

    codes: np.ndarray
    """(N,) object: code texts."""
    system: np.ndarray
    """(N,) int8: place in `SYSTEMS`."""
    choices: np.ndarray
    """Places in `codes`, group after group."""
    cumulative: np.ndarray
    """Number of the group + cumulative weight within it, float64, ascending."""
    groups: np.ndarray
    """(conditions, systems, variants) int32: the group; variants 0 … `STAGES` − 1 are stages, then unspecific and
    rule-out; each falls back to the usual one. −1: no code of that system."""
    names: tuple[str, ...]
    """The conditions: those of the dynamics, then the background."""

    def draw(self, condition: np.ndarray, system: np.ndarray, variant: np.ndarray, u: np.ndarray) -> np.ndarray:
        """Places in `codes` for uniform `u` in [0, 1), all (n,)."""
        at = np.searchsorted(self.cumulative, self.groups[condition, system, variant] + u, side="right")
        return self.choices[np.minimum(at, len(self.choices) - 1)]


STAGES = 6
UNSPECIFIC, RULE_OUT = STAGES, STAGES + 1


def build_code_book(parameters: Parameters) -> CodeBook:
    """The codes of one site and world; in the world without synonyms the first code of every condition alone."""
    site, one_code = parameters.site_name, bool(parameters.world.get("one_code"))
    names = (*parameters.conditions, *(one["id"] for one in parameters.background))
    known: dict[tuple[str, str], int] = {}
    choices, cumulative, groups = [], [], np.zeros((len(names), 2, STAGES + 2), np.int32)
    count = 0

    def group(system: str, weights: dict) -> int:
        nonlocal count
        if one_code:
            weights = {max(weights, key=lambda code: weights[code]): 1.0}
        total, run = float(sum(weights.values())), 0.0
        for code, weight in weights.items():
            choices.append(known.setdefault((system, str(code)), len(known)))
            run += float(weight) / total
            cumulative.append(count + min(run, 1.0))
        cumulative[-1] = count + 1.0
        count += 1
        return count - 1

    for row, one in enumerate((*(parameters.coding.get(name, {}) for name in parameters.conditions),
                               *parameters.background)):  # fmt: skip
        own = {**one, **one.get(site, {})}
        for column, system in enumerate(SYSTEMS):
            if not own.get(system):
                groups[row, column] = -1
                continue
            usual = group(system, own[system])
            groups[row, column] = usual
            if one_code:
                continue
            stages = {
                int(stage): codes[system] for stage, codes in (own.get("stages") or {}).items() if codes.get(system)
            }
            for stage in range(1, STAGES + 1):
                given = [s for s in stages if s <= stage]
                if given and max(given) == stage:
                    groups[row, column, stage - 1] = group(system, stages[stage])
                elif given:
                    groups[row, column, stage - 1] = groups[row, column, stage - 2]
            for variant, key in ((UNSPECIFIC, "unspecific"), (RULE_OUT, "rule_out")):
                if listed := (own.get(key) or {}).get(system):
                    groups[row, column, variant] = group(system, dict.fromkeys(listed, 1.0))
    return CodeBook(
        codes=np.array([code for _, code in known], dtype=object),
        system=np.array([SYSTEMS.index(system) for system, _ in known], np.int8),
        choices=np.array(choices, np.int32),
        cumulative=np.array(cumulative),
        groups=groups,
        names=names,
    )
