"""A cohort spec from a YAML file or plain data: read strictly, checked as a whole, every fault in one error."""

import datetime
from pathlib import Path
from typing import Any

from medbert_jax.cohorts.checks import faults_between_keys
from medbert_jax.cohorts.meds_labels import LabelFolder, Which
from medbert_jax.cohorts.parsing import build, read_yaml
from medbert_jax.cohorts.spec import CohortSpec

SPECS_DIRECTORY = Path(__file__).parent / "specs"


def load_cohort(
    cohort: str, *, gap_days: int | None = None, test_from: datetime.date | None = None, labels: Which = "first"
) -> CohortSpec | LabelFolder:
    """A folder of MEDS labels, or a spec, with these settings in place of its own; errors as those of the two."""
    built_in = (SPECS_DIRECTORY / f"{cohort}.yaml").is_file()
    spec = LabelFolder.find(cohort, labels) if Path(cohort).is_dir() and not built_in else load_spec(cohort)
    if labels != "first" and not isinstance(spec, LabelFolder):
        raise ValueError(f"labels says which of a folder's labels is taken: got {labels} and a spec; leave it out")
    asked = {"gap_days": gap_days, "test_from": test_from}
    asked = {name: value for name, value in asked.items() if value is not None}
    if not asked:
        return spec
    if isinstance(spec, LabelFolder):
        raise ValueError(
            f"{' and '.join(asked)} change a spec: got {', '.join(f'{name} {value}' for name, value in asked.items())}"
            f" and the labels {spec.name}, which say their time themselves; leave it out"
        )
    return changed_spec(spec, gap_days=gap_days, test_from=test_from)


def load_spec(name_or_path: str | Path) -> CohortSpec:
    """A built-in cohort by name, or the cohort of a YAML file; ValueError lists every fault with its key."""
    built_in = {path.stem: path for path in sorted(SPECS_DIRECTORY.glob("*.yaml"), key=lambda path: path.stem)}
    path = built_in.get(str(name_or_path), Path(name_or_path))
    if not path.is_file():
        raise ValueError(
            f"a cohort is a built-in name or a YAML file: got {str(name_or_path)!r}; "
            f"use {', '.join(built_in)}, or the path of a .yaml file that exists"
        )
    data, faults = read_yaml(path)
    return parse_spec(data, source=str(path), faults=faults)


def parse_spec(data: Any, *, source: str, faults: list[str] | None = None) -> CohortSpec:
    """The spec that plain data (a YAML file's content) describe; one ValueError lists every fault of it."""
    faults = list(faults or ())
    if data is not None or not faults:
        spec = build(CohortSpec, _without_idle_measure(data), "", faults)
        if spec is not None:
            faults += faults_between_keys(spec)
    if faults:
        raise ValueError(
            f"a cohort spec must follow its format: {source} has {len(faults)} "
            f"fault{'s' if len(faults) > 1 else ''};\n  " + "\n  ".join(faults) + "\ncorrect these keys"
        )
    return spec


def stored_spec(data: dict[str, Any], *, source: str) -> CohortSpec:
    """The spec that a dataset holds; one made before specs said whom alone they judge by what comes after the index
    says it here."""
    spec = build(CohortSpec, _without_idle_measure(data), "", [])
    if spec is not None and "looks_after_index" not in data and (whom := spec.looking_after_index()):
        data = {**data, "looks_after_index": whom}
    return parse_spec(data, source=source)


def _without_idle_measure(data: Any) -> Any:
    """Beside any_of and none_of `measure: visits` may stand, and means nothing: datasets made before say it."""
    if isinstance(data, list):
        return [_without_idle_measure(item) for item in data]
    if not isinstance(data, dict):
        return data
    idle = data.keys() & {"any_of", "none_of"} and data.get("measure") == "visits"
    return {key: _without_idle_measure(value) for key, value in data.items() if not idle or key != "measure"}


def changed_spec(
    spec: CohortSpec, *, gap_days: int | None = None, test_from: datetime.date | None = None
) -> CohortSpec:
    """The spec with these settings in place of its own, checked anew; None leaves its own."""
    plain = spec.to_dict()
    if gap_days is not None:
        plain["input"]["gap_days"] = gap_days
    if test_from is not None:
        plain["split"] = {"description": "Tested on later predictions", "tag": "ours", "test_from": test_from}
    return parse_spec(plain, source=spec.name)
