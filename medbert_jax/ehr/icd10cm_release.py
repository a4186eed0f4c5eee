"""Titles of the codes of ICD-10-CM, from the release that the package simple-icd-10-cm holds.

The package's own functions give the same (a test compares them), after building a tree of all that the release says of
each code, which takes three times as long; so its two files are read here, and the package is not imported.
"""

import re
from importlib.util import find_spec
from pathlib import Path
from xml.etree import ElementTree

CODE_SHAPE = re.compile(r"[A-Z]\d[0-9A-Z](\.[0-9A-Z]{1,4})?")  # not a chapter ("4") or a block ("E08-E13")


def read_titles() -> dict[str, str]:
    """Code with its dot → title on one line, categories and codes with a seventh character among them."""
    listed = _file("code-list-*.txt").read_text("utf-8")
    existing = {line.split(" ")[0].replace(".", "") for line in listed.split("\n")}
    found: dict[str, str] = {}
    for chapter in ElementTree.parse(_file("icd10c-tabular-*.xml")).getroot().iter("chapter"):
        _read_below(chapter, {}, existing, found)
    return found


def _file(pattern: str) -> Path:
    package = find_spec("simple_icd_10_cm")
    folders = package.submodule_search_locations if package else None
    files = [path for folder in folders or () for path in Path(folder, "data").glob(pattern)]
    if len(files) != 1:
        raise ImportError(
            f"titles of ICD-10-CM come from one file {pattern} of the package simple-icd-10-cm: got {len(files)};"
            " install a version of it that pyproject.toml allows"
        )
    return files[0]


def _read_below(
    node: ElementTree.Element, extensions: dict[str, str], existing: set[str], found: dict[str, str]
) -> None:
    """Read the codes under a chapter, section or code; `extensions` are the seventh characters said above them."""
    for part in node:
        if part.tag == "section":
            _read_below(part, _extensions(part) or extensions, existing, found)
        elif part.tag == "diag":
            code, title = (part.findtext(name, "") for name in ("name", "desc"))
            if CODE_SHAPE.fullmatch(code):
                found.setdefault(code, " ".join(title.split()))
            own = _extensions(part) or extensions
            if part.find("diag") is not None:
                _read_below(part, own, existing, found)
                continue
            whole = (code + "." * (len(code) == 3)).ljust(7, "X")  # X holds the place of a character that is not there
            for sign, said in own.items():
                if (extended := whole + sign).replace(".", "") in existing:
                    found.setdefault(extended, " ".join(f"{title}, {said}".split()))


def _extensions(node: ElementTree.Element) -> dict[str, str]:
    """Seventh character → its words, of all codes under a node that says them."""
    found, last = {}, ""
    for part in node.iterfind("sevenChrDef/*"):
        if part.tag == "extension":
            last = part.attrib["char"]
            found[last] = part.text or ""
        elif part.tag == "note" and last:
            found[last] += f"/{part.text}"
    return found
