"""Reading ONNX files: their parameters, operators and signature. For child processes only.

`onnx` is imported inside the functions; messages of its protobuf classes are typed `Any`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.facts import ONNX_DOMAINS, find_inputs
from modelwright.core.onnx.walk import iterate_graphs
from modelwright.core.records.signature import Dimension, Signature, TensorSpec
from modelwright.exporters.file_kinds import refuse_other_files

_NUMPY_NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
}
"""onnx.TensorProto.DataType -> numpy's name, of the types that numpy itself has and runtimes take."""
_STRING_TYPE = 8
_COMPLEX_TYPES = (14, 15)
"""onnx.TensorProto: COMPLEX64, COMPLEX128."""
_INVENTED_NAME = re.compile(r"^unk__\d+$")
"""What onnx's shape inference calls dimensions without a name."""
_PROTOBUF_START = 0x08
"""The tag of `ir_version`, which every exporter writes first."""


def read_graph(path: Path) -> Any:
    """Reads a model without its external data.

    Raises:
        BadInputError: Not ONNX, cut off, or without a graph.
    """
    import onnx

    refuse_other_files(path)
    try:
        model = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # protobuf's errors depend on its implementation
        with path.open("rb") as file:
            looks_right = file.read(1) == bytes([_PROTOBUF_START])
        size = path.stat().st_size
        what = f"is cut off or damaged ({size} bytes)" if looks_right else "is not an ONNX model"
        raise BadInputError(f"{path} {what}", hint="download or export it again") from error
    if not model.HasField("graph") or not (model.graph.node or model.graph.output):
        raise BadInputError(f"{path} is not an ONNX model, or is cut off: it has no graph")
    if any(isinstance(text, bytes) for text in _iterate_texts(model)):
        raise BadInputError(f"{path} is damaged: it holds names that are not text", hint="download or export it again")
    return model


def _iterate_texts(model: Any) -> Iterator[Any]:
    """Yields the names of a model; protobuf hands over `bytes` for what is not UTF-8, which nothing later expects."""
    yield from (entry.domain for entry in model.opset_import)
    for graph in iterate_graphs(model):
        for node in graph.node:
            yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
            yield from (attribute.name for attribute in node.attribute)
        if hasattr(graph, "initializer"):
            yield from (tensor.name for tensor in graph.initializer)
            for value in (*graph.input, *graph.output, *graph.value_info):
                yield value.name
                yield from (dimension.dim_param for dimension in value.type.tensor_type.shape.dim)


def list_operators(model: Any) -> set[tuple[str, str]]:
    """Returns (domain, operator) of all nodes, the default domain as an empty string."""
    return {
        ("" if node.domain in ONNX_DOMAINS else node.domain, node.op_type)
        for graph in iterate_graphs(model)
        for node in graph.node
    }


def read_signature(path: Path, model: Any) -> Signature:
    """Returns the signature; a dynamic dimension without a name becomes `batch` on axis 0, `dim_K` on axis K.

    Raises:
        BadInputError: An input or output that is not a tensor of numbers, or an input of unknown rank.
    """
    inputs = find_inputs(model.graph)
    if not inputs:
        raise BadInputError(f"{path} has no inputs: its outputs are constants")
    if not model.graph.output:
        raise BadInputError(f"{path} has no outputs")
    return Signature(
        inputs=tuple(_read_spec(path, "input", value) for value in inputs),
        outputs=tuple(_read_spec(path, "output", value) for value in model.graph.output),
    )


def _read_spec(path: Path, role: str, value: Any) -> TensorSpec:
    kind = value.type.WhichOneof("value")
    if kind is None and role == "output":
        raise BadInputError(f"{path}: output {value.name} has no type, and shape inference finds none")
    if kind != "tensor_type":
        what = (kind or "untyped").removesuffix("_type").replace("_", " ")
        hint = "cut the graph before that node; for scikit-learn models convert with options={'zipmap': False}"
        raise BadInputError(f"{path}: {role} {value.name} is {what}, only dense tensors are supported", hint=hint)
    tensor = value.type.tensor_type
    dtype = _NUMPY_NAMES.get(tensor.elem_type)
    if dtype is None:
        import onnx

        known = tensor.elem_type in onnx.TensorProto.DataType.values()
        name = onnx.TensorProto.DataType.Name(tensor.elem_type).lower() if known else f"type {tensor.elem_type}"
        raise BadInputError(
            f"{path}: {role} {value.name} is {name}, only real numbers that numpy has are supported",
            hint=_say_what_to_do(role, tensor.elem_type, name),
        )
    if not tensor.HasField("shape"):
        if role == "input":
            raise BadInputError(
                f"{path}: input {value.name} has no shape, not even a rank",
                hint="export it again with input shapes; or load it with onnx, and for that entry i of graph.input: "
                f"i.CopyFrom(onnx.helper.make_tensor_value_info(i.name, {tensor.elem_type}, ['batch', ...]))",
            )
        return TensorSpec(name=value.name, dtype=dtype, shape=None)
    shape = tuple(_read_dimension(axis, dimension) for axis, dimension in enumerate(tensor.shape.dim))
    return TensorSpec(name=value.name, dtype=dtype, shape=shape)


def _say_what_to_do(role: str, kind: int, name: str) -> str:
    """Returns what helps against an input or output of a type that cannot be fed or compared."""
    if kind == _STRING_TYPE:
        return "do the text processing outside the model"
    if kind in _COMPLEX_TYPES:
        return "let the model work on real and imaginary parts, as float32 with an axis of 2 at the end"
    return (
        f"let the model take float32, and Cast that to {name} inside it"
        if role == "input"
        else "add a Cast to float32 behind it"
    )


def _read_dimension(axis: int, dimension: Any) -> Dimension:
    # Some exporters write -1 for a size that they do not know.
    if dimension.WhichOneof("value") == "dim_value" and dimension.dim_value >= 0:
        return int(dimension.dim_value)
    name = "" if _INVENTED_NAME.match(dimension.dim_param) else dimension.dim_param
    return name or ("batch" if axis == 0 else f"dim_{axis}")
