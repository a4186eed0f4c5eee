"""A dataset that is there already: whether it is the one that is asked for, and whole."""

from collections.abc import Callable
from pathlib import Path

from medbert_jax.data.metadata import read_dataset_info, read_metadata
from medbert_jax.data.vocabulary import check_unknown
from medbert_jax.disk.seals import changed_files


def take_existing(directory: Path, recipe: dict, unknown_code_limit: float, announce: Callable[[str], None]) -> None:
    """Tell that the dataset is there, and the share of its unknown codes.

    Raises:
        ValueError: it was made by another recipe, a file of it is missing or another one, or more codes than the limit
            are unknown.
    """
    metadata = read_metadata(directory)
    made = metadata.get("recipe", {})
    if differing := _differing(made, recipe):
        changes = "; ".join(change for key in differing for change in _changes(key, made.get(key), recipe.get(key)))
        raise ValueError(
            f"a dataset is not replaced by another: {directory} differs from what is asked for in"
            f" {changes}; choose another name, or give --replace"
        )
    if faults := _faults(directory, metadata):
        shown = ", ".join(faults[:8]) + " …" * (len(faults) > 8)
        raise ValueError(
            f"the files of a dataset must all be there as they were written: got {len(faults)} that are not in"
            f" {directory}: {shown}; copy them from where they are whole, or give the same command with --replace"
        )
    fitted = "minimum_patients" in recipe
    shown = check_unknown(metadata["unknown_code_share"], unknown_code_limit, fitted=fitted)
    announce(f"codes unknown to the vocabulary: {shown}")
    announce(f"the dataset is there already: {directory}")


def is_as_asked(directory: Path, recipe: dict) -> bool:
    """Whether the dataset there was made by the recipe, with all its files. Errors as `read_metadata`."""
    metadata = read_metadata(directory)
    return not _differing(metadata.get("recipe", {}), recipe) and not _faults(directory, metadata)


def _differing(made: dict, asked: dict) -> list[str]:
    return sorted(key for key in made | asked if made.get(key) != asked.get(key))


def _changes(key: str, made, asked) -> list[str]:
    """Return what differs, "key: before → now", as deep in the recipe as it does."""
    if made == asked:
        return []
    if isinstance(made, dict) and isinstance(asked, dict):
        return [
            change for part in made | asked for change in _changes(f"{key}.{part}", made.get(part), asked.get(part))
        ]
    if isinstance(made, list) and isinstance(asked, list) and len(made) == len(asked):
        pairs = enumerate(zip(made, asked, strict=True), start=1)
        return [change for number, pair in pairs for change in _changes(f"{key}[{number}]", *pair)]
    return [f"{key}: {made} → {asked}"]


def _faults(directory: Path, metadata: dict) -> list[str]:
    """Return what is wrong with the files that TFDS' info and the metadata name."""
    sizes: dict[str, int] = metadata.get("files", {})
    try:
        info = read_dataset_info(directory)
    except (OSError, ValueError):
        return ["dataset_info.json, which is missing or damaged"]
    lengths = {split["name"]: len(split["shardLengths"]) for split in info["splits"]}
    names = {
        f"{info['name']}-{split}.{info.get('fileFormat', 'array_record')}-{number:05d}-of-{count:05d}"
        for split, count in lengths.items()
        for number in range(count)
    }
    faults = []
    for name in sorted({"features.json", *names, *sizes}):
        path = directory / name
        if not path.is_file():
            faults.append(f"{name} is missing")
        elif (size := path.stat().st_size) != sizes.get(name, size) or not size:
            faults.append(f"{name} has {size} bytes" + f" and not {sizes[name]}" * (name in sizes))
    return faults or [f"{name} is another one" for name in changed_files(directory, metadata)]
