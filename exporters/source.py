"""What the user may give as a source, told apart by name alone."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from modelwright.core.errors import BadInputError

Kind = Literal["onnx", "pt2", "factory"]


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source.

    Attributes:
        kind: Of source.
        path: The file.
        function: The factory's name; None for the other kinds.
    """

    kind: Kind
    path: Path
    function: str | None = None

    def __str__(self) -> str:
        return str(self.path) if self.function is None else f"{self.path}:{self.function}"


def parse_source(text: str) -> Source:
    """Reads `model.onnx`, `model.pt2` or `file.py:factory`.

    Raises:
        BadInputError: No such file, or not a kind of source; says what was expected.
    """
    head, separator, function = text.rpartition(":")
    if separator and head.endswith(".py"):
        return Source(kind="factory", path=_require_file(Path(head)), function=function)
    path = Path(text)
    if path.suffix == ".py":
        _require_file(path)
        names = _list_functions(path)
        raise BadInputError(
            f"{text} names no factory",
            hint=f"give {text}:FUNCTION, a function that returns an nn.Module"
            + (f"; the file has {', '.join(names)}" if names else ""),
        )
    if path.is_dir():
        raise BadInputError(
            f"{path} is a folder, not a source",
            hint="for a transformers model write a factory that loads it: file.py:create, returning the nn.Module",
        )
    if path.suffix == ".onnx":
        return Source(kind="onnx", path=_require_file(path))
    if path.suffix == ".pt2":
        return Source(kind="pt2", path=_require_file(path))
    _require_file(path)
    hint = "a source is model.onnx, model.pt2 (torch.export.save) or file.py:factory"
    if path.suffix in (".pt", ".pth", ".ckpt", ".bin", ".safetensors"):
        hint = f"{path.suffix} holds weights without the network: write a factory that loads them, file.py:factory"
    raise BadInputError(f"{path}: {path.suffix or 'no suffix'} is not a kind of source", hint=hint)


def _require_file(path: Path) -> Path:
    if not path.is_file():
        raise BadInputError(f"no such file: {path}", hint="a source is model.onnx, model.pt2 or file.py:factory")
    return path


def _list_functions(path: Path) -> list[str]:
    try:
        tree = ast.parse(path.read_text(encoding="utf-8"))
    except (SyntaxError, ValueError):
        return []
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef) and not node.name.startswith("_")]
