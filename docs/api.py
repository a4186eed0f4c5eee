"""The Python interface in one page, from the docstrings: what `medbert_jax` names, and what those give back.

    python docs/api.py

Writes docs/api.md. Signatures and docstrings are read from the source, so no default is computed.
"""

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import medbert_jax  # noqa: E402

PAGE = ROOT / "docs" / "api.md"
GIVEN_BACK = {
    "Pretrained": "medbert_jax.training.pretrained",
    "PatientSequences": "medbert_jax.data.sequences",
    "Vocabulary": "medbert_jax.data.vocabulary",
    "SerializationConfig": "medbert_jax.data.serialization",
    "HeadConfig": "medbert_jax.models.finetune_heads",
}
"""What the public names take or give back, and where it is imported from."""
_HEAD = """# The Python interface

Made from the docstrings by `python docs/api.py`; a test holds it to them. What is on this page is imported from
`medbert_jax`, but where a module is named; how it goes together is in [python.md](python.md).
"""
_SECTION = re.compile(r"^(Args|Raises|Returns):$")


def page() -> str:
    """The whole page."""
    names = {**dict(sorted(medbert_jax._PUBLIC.items(), key=lambda one: one[0].lower())), **GIVEN_BACK}
    return "\n".join([_HEAD, *(line for name, module in names.items() for line in entry(name, module))])


def entry(name: str, module: str) -> Iterator[str]:
    """What stands on the page of one name."""
    source = (ROOT / (module.replace(".", "/") + ".py")).read_text(encoding="utf-8")
    node = next(one for one in ast.parse(source).body if getattr(one, "name", None) == name)
    yield f"## {name}\n"
    if name in GIVEN_BACK:
        yield f"`from {module} import {name}`\n"
    if isinstance(node, ast.FunctionDef):
        yield signature(node, node.name)
    yield text_of(node)
    if isinstance(node, ast.ClassDef):
        yield from class_of(node)


def class_of(node: ast.ClassDef) -> Iterator[str]:
    """Its fields, then its methods and properties."""
    fields = [f"- `{field}`: {words}" for field, words in fields_of(node)]
    yield from ["\n".join(fields) + "\n"] * bool(fields)
    for method in node.body:
        if isinstance(method, ast.FunctionDef) and (method.name == "__init__" or not method.name.startswith("_")):
            kinds = {ast.unparse(one) for one in method.decorator_list}
            if kinds & {"property", "cached_property"}:
                yield f"### {node.name}.{method.name}\n"
            elif method.name == "__init__":
                yield signature(method, node.name)
                continue
            else:
                yield f"### {node.name}.{method.name}\n"
                yield signature(method, f"{node.name}.{method.name}" if "classmethod" in kinds else method.name)
            yield text_of(method)


def fields_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Field of a dataclass with its default, and the string below it."""
    for field, below in zip(node.body, [*node.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign):
            is_text = isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant)
            words = " ".join(str(below.value.value).split()) if is_text else ast.unparse(field.annotation)
            default = "" if field.value is None else f" = {ast.unparse(field.value)}"
            yield ast.unparse(field.target) + default, words


def signature(node: ast.FunctionDef, name: str) -> str:
    """As a call, without the annotations, which the text says in words."""
    arguments = node.args
    for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        one.annotation = None
    for first in [one for one in arguments.args[:1] if one.arg in ("self", "cls")]:
        arguments.args.remove(first)
    return f"```text\n{name}({ast.unparse(arguments)})\n```\n"


def text_of(node: ast.ClassDef | ast.FunctionDef) -> str:
    """The docstring; its sections as lists."""
    lines, listed = [], False
    for line in inspect.cleandoc(ast.get_docstring(node) or "").split("\n"):
        if match := _SECTION.match(line):
            lines += [f"**{match[1]}**", ""]
            listed = True
        elif listed and re.match(r"    \S", line):
            argument, colon, words = line.strip().partition(": ")
            lines.append(f"- `{argument}`{colon}{words}")
        elif listed and line.startswith("     "):
            lines.append("  " + line.strip())
        else:
            listed = False
            lines.append(line)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE)
