"""Loads and saves ONNX models of any size, and copies them with the files that hold their weights."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.onnx import external_data
from modelwright.core.records.artifact_files import is_reserved
from modelwright.targets.readiness import require_import

_PROTOBUF_LIMIT_BYTES = 2**31 - 2**24
"""Protobuf cannot serialize more than 2 GiB; the rest is left for the graph."""
_STORED_APART_BYTES = 1024
_PAGE_BYTES = 4096


def load_model(path: Path, *, weights: bool = True) -> Any:
    """Loads an ONNX model, with its external data unless `weights` is False.

    Raises:
        BadInputError: The file or its external data cannot be read.
    """
    onnx = require_import("onnx", "onnx")
    try:
        return onnx.load(str(path), load_external_data=weights)
    except Exception as error:  # protobuf, OSError and onnx.checker errors have no common base
        raise BadInputError(f"{path} cannot be read as an ONNX model", detail=str(error)) from error


def save_model(model: Any, path: Path) -> None:
    """Saves a model, unchanged; one too large for protobuf gets its large weights in `<name>.data` beside it."""
    if not is_large(model):
        path.write_bytes(model.SerializeToString())
        return
    onnx = require_import("onnx", "onnx")
    apart = onnx.ModelProto()
    for entry, value in model.ListFields():
        if entry.name not in ("graph", "opset_import", "functions", "metadata_props", "training_info"):
            setattr(apart, entry.name, value)
    for name in ("opset_import", "functions", "metadata_props"):
        getattr(apart, name).extend(getattr(model, name))
    apart.graph.name = model.graph.name
    for name in ("node", "input", "output", "value_info", "sparse_initializer"):
        getattr(apart.graph, name).extend(getattr(model.graph, name))
    with path.with_name(f"{path.name}.data").open("wb") as file:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _STORED_APART_BYTES:
                apart.graph.initializer.append(tensor)
                continue
            file.write(b"\0" * (-file.tell() % _PAGE_BYTES))  # runtimes map weights that start on a page
            stored = apart.graph.initializer.add(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
            stored.data_location = onnx.TensorProto.EXTERNAL
            facts = {"location": f"{path.name}.data", "offset": file.tell(), "length": len(tensor.raw_data)}
            for key, fact in facts.items():
                stored.external_data.add(key=key, value=str(fact))
            file.write(tensor.raw_data)
    path.write_bytes(apart.SerializeToString())


def is_large(model: Any) -> bool:
    """Whether a model is too large to be one protobuf message."""
    return sum(len(tensor.raw_data) for tensor in model.graph.initializer) > _PROTOBUF_LIMIT_BYTES


def find_external_files(path: Path) -> list[str]:
    """Returns the files beside a model that hold its weights; see `core.onnx.external_data`.

    Raises:
        BadInputError: The model cannot be read, or names a file that is not its own.
    """
    return external_data.find_external_files(path, load_model(path, weights=False))


def copy_model(path: Path, folder: Path, file_name: str) -> str:
    """Copies a model and the files that hold its weights into the empty folder of an artifact.

    Files of weights whose names an artifact's own files have get others; see `is_reserved`.

    Returns:
        The copy's name: `file_name`, or `graph-` before it where the weights have that name.
    """
    names = find_external_files(path)
    external_data.copy_external_files(path, names, folder)
    file = file_name if file_name not in names else f"graph-{file_name}"
    reserved = [name for name in names if is_reserved(name)]
    if reserved:
        model = load_model(path, weights=False)
        external_data.rename_external_files(model, folder, _choose_names(reserved, names))
        (folder / file).write_bytes(model.SerializeToString())
    else:
        shutil.copyfile(path, folder / file)
    return file


def _choose_names(reserved: list[str], taken: list[str]) -> dict[str, str]:
    """Returns other names for files, none of them taken."""
    prefix = "weights-"
    while any(name.startswith(prefix) for name in taken):
        prefix += "-"
    return {name: f"{prefix}{name}" for name in reserved}


def hash_graph(model: Any) -> str:
    """Returns a hash of a model's nodes and weights, of any size, which must be in it."""
    digest = hashlib.sha256()
    for part in (*model.graph.node, *model.functions, *model.graph.initializer):
        digest.update(part.SerializeToString(deterministic=True))
    return digest.hexdigest()
