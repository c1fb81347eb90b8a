"""Whether an ONNX model, perhaps a foreign one, can be used: what runs in the child, phase by phase.

ONNX Runtime has the last word: what onnx's checker or shape inference complains of becomes a note when ONNX Runtime
loads the model all the same, because many sound models are sloppy. A crash ends the child, and the phase that was
reported last is named by the parent.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.onnx.external_data import find_external_files
from modelwright.core.onnx.facts import INITIALIZERS_APART_IR, find_opset, is_quantized_operator
from modelwright.core.onnx.quantized import count_parameters, find_own_scales
from modelwright.core.onnx.walk import iterate_tensors
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.signature import Signature
from modelwright.exporters.onnx.file import list_operators, read_graph, read_signature

Progress = Callable[[str], None]

_KEPT_ELEMENTS = 256
"""Constants up to this size are kept for shape inference: they hold shapes and axes, larger ones hold weights."""
_DATA_FIELDS = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")
_FLOAT16 = 10
_COMPLAINT_LENGTH = 300


@dataclass(frozen=True, kw_only=True)
class ValidatedModel:
    """What is known of a model that ONNX Runtime loads.

    Attributes:
        signature: Output shapes completed by shape inference.
        num_parameters: Weights, those that are stored as integers among them.
        opset: Of the default domain.
        notes: Sentences for the user.
    """

    signature: Signature
    num_parameters: int
    opset: int
    notes: tuple[str, ...]


def validate_model(path: Path, progress: Progress) -> ValidatedModel:
    """Checks a model whose external data lies next to it, and loads it in ONNX Runtime.

    Raises:
        BadInputError: It cannot be used; says why, and names the operator that ONNX Runtime lacks.
    """
    progress("reading the ONNX file")
    model = read_graph(path)
    find_external_files(path, model)
    opset = find_opset(model)
    _require_known_opset(path, opset)
    num_parameters = count_parameters(model)
    notes = _describe_oddities(model)

    complaints: list[str] = []
    progress("onnx's checker")
    _collect(complaints, "onnx's checker", lambda: _check(path))
    progress("onnx's shape inference")
    _drop_weights(model)
    inferred = _collect(complaints, "onnx's shape inference", lambda: _infer_shapes(model)) or model
    signature = read_signature(path, _complete(model, inferred))
    progress("loading in ONNX Runtime")
    try:
        with ReferenceModel(path, threads=1) as reference:
            signature = _fill_output_shapes(signature, reference.output_shapes)
    except BadInputError as error:
        raise _explain_refusal(model, error, complaints) from error
    notes += [f"{complaint}; ONNX Runtime loads the model all the same" for complaint in complaints]
    return ValidatedModel(signature=signature, num_parameters=num_parameters, opset=opset, notes=tuple(notes))


def _require_known_opset(path: Path, opset: int) -> None:
    import onnx

    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise BadInputError(
            f"{path} has opset {opset}; onnx {onnx.__version__} knows opsets up to {newest}",
            hint="export it again with an older opset (18 suits all targets), or update onnx and onnxruntime",
        )


def _check(path: Path) -> None:
    import onnx

    onnx.checker.check_model(str(path))


def _infer_shapes(model: Any) -> Any:
    import onnx

    return onnx.shape_inference.infer_shapes(model, check_type=True)


def _collect(complaints: list[str], who: str, act: Callable[[], Any]) -> Any:
    """Runs a check whose refusal is only a complaint."""
    try:
        return act()
    except Exception as error:  # onnx raises what its C++ side throws
        text = " ".join(str(error).split())
        complaints.append(f"{who} complains: {text[:_COMPLAINT_LENGTH]}")
        return None


def _drop_weights(model: Any) -> None:
    """Empties large constants in memory: shape inference needs their shapes only."""
    for tensor in iterate_tensors(model):
        if math.prod(tensor.dims) > _KEPT_ELEMENTS:
            for field in _DATA_FIELDS:
                tensor.ClearField(field)


def _complete(model: Any, inferred: Any) -> Any:
    """Returns the inferred model when it names the same inputs and outputs, else the model itself."""
    same = [value.name for value in inferred.graph.output] == [value.name for value in model.graph.output]
    return inferred if same else model


def _fill_output_shapes(signature: Signature, shapes: dict[str, list[int | str | None]]) -> Signature:
    """Takes output shapes that ONNX Runtime infers where the model says nothing."""
    outputs = []
    for spec in signature.outputs:
        found = shapes.get(spec.name)
        if spec.shape is None and found:
            named = ("batch" if axis == 0 else f"dim_{axis}" for axis in range(len(found)))
            shape = tuple(name if size is None else size for size, name in zip(found, named, strict=True))
            outputs.append(replace(spec, shape=shape))
        else:
            outputs.append(spec)
    return replace(signature, outputs=tuple(outputs))


def _explain_refusal(model: Any, error: BadInputError, complaints: list[str]) -> BadInputError:
    """Adds what is known of the model to ONNX Runtime's refusal."""
    own = {function.domain for function in model.functions}
    foreign = sorted(
        f"{domain}:{operator}"
        for domain, operator in list_operators(model)
        if domain and domain not in own and not domain.startswith(("com.microsoft", "ai.onnx"))
    )
    hint = error.hint
    if foreign:
        hint = (
            f"it needs custom operators ({', '.join(foreign[:5])}), which no runtime has without a library of their "
            "own: export the model without them, and do their work outside of it"
        )
    detail = "\n".join([error.detail or "", *complaints]).strip()
    return BadInputError(error.message, hint=hint, detail=detail or None)


def _describe_oddities(model: Any) -> list[str]:
    """Returns what a user should know of a model that works."""
    notes = []
    operators = list_operators(model)
    quantized = sorted(name for _, name in operators if is_quantized_operator(name))
    own = find_own_scales(model)
    if own is not None:
        notes.append(
            f"the model is quantized already: {own.describe()}. What is called FP32 here is what its graph computes in "
            "floats, rounding included: it takes longer than the model that it was made from, and speed-ups look larger"
        )
    elif quantized:
        notes.append(
            f"the model's weights are quantized already ({', '.join(quantized[:3])}): what is called FP32 here is "
            "float arithmetic with these weights, not the model that they were made from"
        )
    weights = list(model.graph.initializer)
    half = sum(math.prod(tensor.dims) for tensor in weights if tensor.data_type == _FLOAT16)
    if 2 * half > sum(math.prod(tensor.dims) for tensor in weights) > 0:
        notes.append("most weights are float16: what follows them is not FP32")
    contrib = sorted(name for domain, name in operators if domain.startswith("com.microsoft"))
    if contrib:
        notes.append(f"operators of ONNX Runtime's own: {', '.join(contrib[:5])}; a runtime without one will say so")
    inputs = {value.name for value in model.graph.input}
    overridable = sum(tensor.name in inputs for tensor in weights)
    if overridable and model.ir_version >= INITIALIZERS_APART_IR:
        notes.append(
            f"{overridable} weights are inputs too, so that runtimes cannot treat them as constants; export to another "
            "file, in which they are"
        )
    return notes
