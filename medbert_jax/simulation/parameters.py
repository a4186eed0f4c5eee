"""The parameters of the simulation, from v1.yaml and v1_coding.yaml."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import yaml

FOLDER = Path(__file__).parent
FILES = ("v1.yaml", "v1_coding.yaml")
SITES = ("cerner", "truven")
WORLDS = ("rich", "bag", "no-synonyms", "independent", "null")
FAMILIES = ("presence", "order", "duration", "recency", "stage", "trait", "trait_if", "years")
TARGETS = ("death", "visit", "leave")
"""What effects act on besides the conditions."""


@dataclass(frozen=True)
class Effect:
    """One log hazard ratio."""

    on: str
    family: str
    of: tuple[str, ...]
    log: float
    source: str


@dataclass(frozen=True)
class Parameters:
    """One site in one world."""

    site_name: str
    world_name: str
    site: dict
    world: dict
    dynamics: dict
    coding: dict
    """condition → code system → code → weight, and further keys (see v1_coding.yaml)."""
    background: list[dict]
    effects: tuple[Effect, ...]
    """Those that act in this world."""
    hash: str
    """sha256 over both files, with normalised line ends."""

    @property
    def conditions(self) -> dict[str, dict]:
        """Condition → its parameters, hidden ones too."""
        return self.dynamics["conditions"]

    @property
    def recurrent(self) -> list[int]:
        """Places of the conditions whose past events are summed."""
        listed = enumerate(self.conditions.values())
        return [place for place, one in listed if one["kind"] == "acute" or one.get("recurrent")]


def load_parameters(site: str = "cerner", world: str = "rich", folder: Path = FOLDER) -> Parameters:
    """Read the parameters of one site and world.

    Raises:
        ValueError: an unknown site or world, or every fault of the files.
    """
    if site not in SITES or world not in WORLDS:
        raise ValueError(
            f"site must be one of {', '.join(SITES)} and world one of {', '.join(WORLDS)}: got {site!r} and {world!r};"
            " choose from these"
        )
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    texts = [(Path(folder) / name).read_bytes().replace(b"\r\n", b"\n").replace(b"\r", b"\n") for name in FILES]
    dynamics, coding = (yaml.load(text, loader) for text in texts)
    dynamics = dynamics["dynamics"]
    effects = tuple(_effect(one) for one in dynamics["effects"])
    if faults := _faults(dynamics, coding["coding"], effects):
        raise ValueError(f"the simulation's parameters must fit each other: got {'; '.join(faults)}; correct v1.yaml")
    settings = dynamics["worlds"][world]
    struck = set(settings.get("random", ()))
    acting = (one for one in effects if one.family in settings["families"] and not struck & {one.on, *one.of})
    return Parameters(
        site_name=site,
        world_name=world,
        site=dynamics["sites"][site],
        world=settings,
        dynamics=dynamics,
        coding=coding["coding"],
        background=coding["background"],
        effects=tuple(acting),
        hash=hashlib.sha256(b"\0".join(texts)).hexdigest(),
    )


def _effect(one: dict) -> Effect:
    (family,) = [name for name in FAMILIES if name in one]
    of = one[family]
    of = tuple(of) if isinstance(of, list) else () if of is None else (of,)
    return Effect(one["to"], family, of, float(one["log"]), one["source"])


def _faults(dynamics: dict, coding: dict, effects: tuple[Effect, ...]) -> list[str]:
    conditions, traits = dynamics["conditions"], dynamics["traits"]
    coded = {name for name, one in conditions.items() if one["kind"] != "hidden"}
    faults = [f"no codes for condition {name}" for name in coded - coding.keys()]
    faults += [f"codes for an unknown condition {name}" for name in coding.keys() - coded]
    for one in effects:
        known = {*conditions} if one.family not in ("trait", "trait_if") else {*conditions, *traits}
        faults += [f"an effect of unknown {name}" for name in one.of if name not in known]
        if one.on not in conditions and one.on not in TARGETS:
            faults.append(f"an effect on unknown {one.on}")
        if not one.source:
            faults.append(f"an effect on {one.on} without a source")
        if one.family == "stage" and one.of[0] not in dynamics["stages"]:
            faults.append(f"an effect of the stage of {one.of[0]}, which has none")
    if len(effects) != len({(one.on, one.family, one.of) for one in effects}):
        faults.append("an effect that is given twice")
    faults += [f"unknown condition {name} under stages" for name in dynamics["stages"] if name not in conditions]
    return sorted(faults)
