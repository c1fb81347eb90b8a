"""Validates ONNX files, foreign ones above all. Runs in a child process: a checker that crashes takes only it along."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.core.child import Progress
from modelwright.core.errors import BadInputError
from modelwright.core.reference import ReferenceModel
from modelwright.core.signature import Signature, TensorSpec

_MAGICS = {
    b"version https://git-lfs": "a Git LFS pointer: run `git lfs pull`",
    b"PK\x03\x04": "a zip archive, as PyTorch writes (.pt, .pt2)",
    b"\x89HDF": "an HDF5 file, as Keras writes",
    b"<!DOC": "a web page: the download failed",
    b"<html": "a web page: the download failed",
    b"\x80\x02": "a Python pickle",
    b"GGUF": "a GGUF file",
}
_TFLITE_MAGIC = b"TFL3"

_DTYPES = {
    "tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16", "tensor(bool)": "bool",
    "tensor(int8)": "int8", "tensor(int16)": "int16", "tensor(int32)": "int32", "tensor(int64)": "int64",
    "tensor(uint8)": "uint8", "tensor(uint16)": "uint16", "tensor(uint32)": "uint32", "tensor(uint64)": "uint64",
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ModelFacts:
    """What validation learned.

    Attributes:
        signature: Names, dtypes and shapes.
        num_parameters: Elements of the float weights.
        opset: Of the default domain.
        data_files: External data, relative to the model's folder.
        notes: What is unusual but does not stop the model from running.
    """

    signature: Signature
    num_parameters: int
    opset: int
    data_files: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return {
            "signature": self.signature.to_dict(),
            "num_parameters": self.num_parameters,
            "opset": self.opset,
            "notes": self.notes,
        }


def validate_model(path: Path, progress: Progress) -> ModelFacts:
    """Checks that a file is an ONNX model that ONNX Runtime can run.

    Args:
        path: The file.
        progress: Told each phase before it begins, so that a crash can be pinned on it.

    Raises:
        BadInputError: It is not; says what it is instead where that can be told.
    """
    progress("reading the file")
    _check_magic(path)
    model = _decode(path)
    progress("checking external data")
    data_files = _check_external_data(path, model)
    notes: list[str] = []
    progress("onnx.checker")
    complaint = _run_checker(path)
    progress("loading in ONNX Runtime")
    try:
        reference = ReferenceModel(path)
    except BadInputError as error:
        raise BadInputError(
            f"{path}: {error.message}", hint=error.hint, detail="\n".join(filter(None, [complaint, error.detail]))
        ) from error
    if complaint is not None:
        notes.append(f"onnx.checker complains, ONNX Runtime runs it all the same: {complaint}")
    return ModelFacts(
        signature=_read_signature(path, reference),
        num_parameters=_count_parameters(model),
        opset=_find_opset(path, model),
        data_files=data_files,
        notes=notes,
    )


def _check_magic(path: Path) -> None:
    if path.stat().st_size == 0:
        raise BadInputError(f"{path} is empty", hint="download or export it again")
    with path.open("rb") as file:
        head = file.read(64)
    kinds = [what for magic, what in _MAGICS.items() if head.startswith(magic)]
    if head[4:8] == _TFLITE_MAGIC:
        kinds.append("a TFLite file; give the FP32 model that it was made from")
    if kinds:
        raise BadInputError(f"{path} is not an ONNX model but {kinds[0]}", hint="give the ONNX file itself")


def _decode(path: Path) -> Any:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path), load_external_data=False)
    except DecodeError as error:
        raise BadInputError(
            f"{path} is not an ONNX model, or is truncated ({path.stat().st_size:,} bytes)",
            hint="export or copy it again",
            detail=str(error),
        ) from error
    if not model.graph.node and not model.graph.output:
        raise BadInputError(f"{path} is not an ONNX model, or is truncated: it holds no graph")
    return model


def _check_external_data(path: Path, model: Any) -> list[str]:
    """Returns the external data files; they must exist, be whole, and lie in the model's folder."""
    import onnx

    folder = path.resolve().parent
    files: dict[str, None] = {}
    for tensor in _all_tensors(model):
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            continue
        entries = {entry.key: entry.value for entry in tensor.external_data}
        name = entries.get("location", "")
        data = folder / name
        escapes = PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts or not name
        if escapes or not data.resolve().is_relative_to(folder):
            raise BadInputError(
                f"{path}: tensor {tensor.name} takes its data from {name!r}, outside the model's folder",
                hint="do not use this model unless you know where it comes from",
            )
        if not data.is_file():
            raise BadInputError(
                f"{path}: its weights are in {name}, which is missing", hint=f"copy {name} into {folder} too"
            )
        needed = int(entries.get("offset") or 0) + int(entries.get("length") or 0)
        if data.stat().st_size < needed:
            raise BadInputError(
                f"{path}: {name} is truncated: {data.stat().st_size:,} bytes, {needed:,} are needed",
                hint="copy it again",
            )
        files[name] = None
    return list(files)


def _all_tensors(model: Any) -> list[Any]:
    """Returns every tensor of the graph and its subgraphs: initializers and constants."""
    found, graphs = [], [model.graph]
    while graphs:
        graph = graphs.pop()
        found += list(graph.initializer)
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    found.append(attribute.t)
                if attribute.HasField("g"):
                    graphs.append(attribute.g)
                graphs += list(attribute.graphs)
    return found


def _run_checker(path: Path) -> str | None:
    """Returns what `onnx.checker` complains of; by path, so that files over 2 GB work too."""
    import onnx

    try:
        onnx.checker.check_model(str(path))
    except Exception as error:  # ValidationError, but also plain RuntimeError and ValueError
        return str(error).strip().splitlines()[0][:300] if str(error).strip() else type(error).__name__
    return None


def _read_signature(path: Path, reference: ReferenceModel) -> Signature:
    return Signature(
        inputs=tuple(_read_spec(path, value, is_input=True) for value in reference.inputs),
        outputs=tuple(_read_spec(path, value, is_input=False) for value in reference.outputs),
    )


def _read_spec(path: Path, value: Any, *, is_input: bool) -> TensorSpec:
    if value.type not in _DTYPES:
        raise BadInputError(
            f"{path}: {'input' if is_input else 'output'} {value.name} is {value.type}; only tensors of numbers work",
            hint="cut the model after its preprocessing, or before its ZipMap",
        )
    shape = value.shape
    if not is_input:
        known = None if not shape else tuple(d if isinstance(d, int) and d > 0 else str(d or "?") for d in shape)
        return TensorSpec(name=value.name, dtype=_DTYPES[value.type], shape=known)
    dimensions: list[int | str] = []
    for axis, size in enumerate(shape):
        if (isinstance(size, int) and size > 0) or (isinstance(size, str) and size):
            dimensions.append(size)
        else:
            dimensions.append("batch" if axis == 0 else f"{value.name}_dim{axis}")
    return TensorSpec(name=value.name, dtype=_DTYPES[value.type], shape=tuple(dimensions))


def _count_parameters(model: Any) -> int:
    import onnx

    floats = {onnx.TensorProto.FLOAT, onnx.TensorProto.DOUBLE, onnx.TensorProto.FLOAT16, onnx.TensorProto.BFLOAT16}
    total = 0
    for tensor in _all_tensors(model):
        if tensor.data_type in floats:
            elements = 1
            for size in tensor.dims:
                elements *= size
            total += elements
    return total


def _find_opset(path: Path, model: Any) -> int:
    versions = [item.version for item in model.opset_import if item.domain in ("", "ai.onnx")]
    if not versions:
        raise BadInputError(f"{path} imports no standard opset")
    return int(max(versions))
