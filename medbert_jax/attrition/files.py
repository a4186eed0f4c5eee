"""The attrition of folders of EHR tables and datasets: from their ledgers, and the metadata of the last, to files."""

from collections.abc import Sequence
from pathlib import Path

from medbert_jax.attrition.flow_chart import flow_chart
from medbert_jax.attrition.ledger import Counts, Ledger
from medbert_jax.attrition.steps import Attrition, Branches
from medbert_jax.disk.seals import check_files, check_seal
from medbert_jax.disk.stored_json import parse_object, read_object
from medbert_jax.disk.whole_files import write_whole

_AGAIN = "delete that folder and make the dataset again with `medbert prepare` or `medbert cohort`"


def read_attrition(folders: Sequence[Path]) -> Attrition:
    """The steps of the folders, in order, and the splits of the last where it is a dataset: cases and controls of each.

    Raises:
        FileNotFoundError: a folder without ledger.json.
        ValueError: no folder, files that are damaged or do not fit together.
    """
    return Attrition(list(map(read_ledger, folders)), _branches(Path(folders[-1])) if folders else {})


def read_ledger(folder: str | Path) -> Ledger:
    """The ledger of EHR tables or of a dataset. Errors as `read_attrition`."""
    path, cure = Path(folder) / "ledger.json", "`medbert ingest`, `medbert prepare` and `medbert cohort` write it"
    if not path.is_file():
        raise FileNotFoundError(f"a folder with an attrition must hold ledger.json: got {folder}; {cure}")
    _check_sums(Path(folder))
    try:
        return Ledger.from_dict(parse_object(path.read_bytes()))
    except ValueError as error:  # what from_dict says has three parts of its own
        raise ValueError(
            f"ledger.json must be as it was written: got {path} with this: {error}; {cure} again"
        ) from None


def _check_sums(folder: Path) -> None:
    """Raise ValueError where a dataset's metadata, or its ledger, are not what was written."""
    path = folder / "metadata.json"
    try:
        metadata = read_object(path)
    except (FileNotFoundError, ValueError):  # EHR tables; a damaged file is told by who reads it
        return
    check_seal(path, metadata, _AGAIN)
    check_files(path, metadata, ["ledger.json"], _AGAIN)


def _branches(folder: Path) -> Branches:
    path = folder / "metadata.json"
    if not path.is_file():  # EHR tables have no splits
        return {}
    try:
        metadata = read_object(path)
        sizes, cases = metadata["split"]["counts"], metadata.get("cases")
        if cases is None:
            return {split: Counts(patients=int(size)) for split, size in sizes.items()}
        level = "predictions" if "patients" in metadata else "patients"  # of a split, where they are fewer
        return {
            split: {
                "cases": Counts(**{level: int(cases[split])}),
                "controls": Counts(**{level: int(size) - int(cases[split])}),
            }
            for split, size in sizes.items()
        }
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(
            f"metadata.json of a dataset must count the patients of its splits: got {path}, which does not;"
            " `medbert prepare` and `medbert cohort` write it again"
        ) from None


def write_attrition(attrition: Attrition, out: Path, *, share: bool = False) -> list[Path]:
    """Write OUT.csv and OUT.svg; return their paths. An ending .csv or .svg of `out` itself is not doubled."""
    out = Path(out)
    name = out.stem if out.suffix in (".csv", ".svg") else out.name  # run.v2 has no ending
    out.parent.mkdir(parents=True, exist_ok=True)
    texts = {
        "csv": attrition.to_csv(share=share),
        "svg": flow_chart(attrition.steps, branches=attrition.branches, share=share),
    }
    paths = [out.with_name(f"{name}.{ending}") for ending in texts]
    for path, text in zip(paths, texts.values(), strict=True):
        write_whole(path, text)
    return paths
