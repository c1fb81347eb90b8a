"""From ONNX to OpenVINO's graph, with the batch fixed where only that converts; and what stopped it, by name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.doubles import has_double_weights, narrow_doubles
from modelwright.core.onnx.walk import iterate_graphs
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.files import load_model, save_model
from modelwright.targets.openvino.pads import has_open_pads, write_pads
from modelwright.targets.openvino.session import find_ports

_NO_RULE = re.compile(r"No conversion rule found for operations: *(.+)")
_FAILED_NODE = re.compile(r"While validating ONNX node '<Node\((?P<op>[^)]*)\): (?P<node>[^>]*)>':\n(?P<why>[^\n]*)")
_CONSEQUENCE = "Unsupported input type dynamic"
"""What an operator says whose input comes from one that did not convert."""
_HINT = "the ort-* targets run this model; or replace the operator in it, or export with another opset"
_WIDE = "float64 is float32 here, in inputs and outputs too: OpenVINO's layers know no wider type"


@dataclass(frozen=True, kw_only=True)
class Converted:
    """A model in OpenVINO's form.

    Attributes:
        model: Of OpenVINO; its ports carry the ONNX names.
        signature: Of it: dimensions may have had to be fixed, and float64 is float32.
        notes: Sentences for the user.
    """

    model: Any = field(repr=False)
    signature: Signature
    notes: tuple[str, ...]


def convert_model(openvino: Any, request: BuildRequest) -> Converted:
    """Converts ONNX to an OpenVINO model: as it is, else with the batch fixed, else with all that does not vary.

    `read_model` would do, but leaves the graph as torch wrote it: NNCF then misses the grouped convolutions, whose
    weights lie behind a Reshape, and attention stays unfused (1.12 and 1.15 times slower in INT8).

    Raises:
        BuildFailedError: It converts neither way; names the operator and node.
    """
    path, narrowed = _adapt(request)
    notes = (_WIDE,) if narrowed else ()
    first: Exception | None = None
    for sizes in ({}, *_choose_sizes(request)):
        fixed = _take_types(request.signature, narrowed=narrowed).with_fixed(sizes)
        shapes = {spec.name: list(spec.shape or ()) for spec in fixed.inputs}
        how = {name: [-1 if isinstance(size, str) else size for size in shape] for name, shape in shapes.items()}
        try:
            model = openvino.convert_model(str(path), **({"input": how} if sizes else {}))
        except Exception as error:  # OpenVINO raises classes of its own that have no common base
            first = first or error
            continue
        _name_ports(model, request.signature)
        if first is None:
            return Converted(model=model, signature=fixed, notes=notes)
        said = ", ".join(f"{name} is fixed at {size}" for name, size in sizes.items())
        why = f"{said}: OpenVINO cannot convert it otherwise ({name_obstacle(str(first), path)})"
        return Converted(model=model, signature=fixed, notes=(*notes, why))
    assert first is not None, "the model as it is was tried"
    raise BuildFailedError(
        f"OpenVINO cannot convert {request.model_path.name}: {name_obstacle(str(first), path)}",
        hint=_HINT,
        detail=str(first),
    ) from first


def _choose_sizes(request: BuildRequest) -> Iterator[Mapping[str, int]]:
    """Yields what to fix: the batch at one sample, then every dimension that has one size in all samples."""
    signature = request.signature
    batch: dict[str, int] = {}
    if signature.batch_is_dynamic:
        batch = {str((signature.inputs[0].shape or ("",))[0]): 1}
        yield batch
    sizes = dict(batch)
    for spec in signature.inputs:
        shapes = request.shapes.get(spec.name)
        if shapes is None:
            continue
        for name, low, high in zip(spec.shape or (), shapes.minimum, shapes.maximum, strict=True):
            if isinstance(name, str) and low == high:
                sizes.setdefault(name, low)
    if sizes != batch:
        yield sizes


def _adapt(request: BuildRequest) -> tuple[Path, bool]:
    """Returns the model to convert, a copy where OpenVINO would not read it as ONNX does; whether float64 is gone."""
    seen = load_model(request.model_path, weights=False)
    wide, open_pads = has_double_weights(seen), has_open_pads(seen)
    if not wide and not open_pads:
        return request.model_path, False
    model = load_model(request.model_path)
    if wide:
        narrow_doubles(model)
    write_pads(model)
    path = request.scratch / "adapted.onnx"
    save_model(model, path)
    return path, wide


def _take_types(signature: Signature, *, narrowed: bool) -> Signature:
    """Returns the signature with float32 in float64's place."""

    def narrow(spec: TensorSpec) -> TensorSpec:
        return replace(spec, dtype="float32") if narrowed and spec.dtype == "float64" else spec

    return Signature(inputs=tuple(map(narrow, signature.inputs)), outputs=tuple(map(narrow, signature.outputs)))


def _name_ports(model: Any, signature: Signature) -> None:
    for ports, specs in ((model.inputs, signature.inputs), (model.outputs, signature.outputs)):
        for index, spec in zip(find_ports(ports, specs), specs, strict=True):
            if spec.name not in ports[index].get_names():
                ports[index].get_tensor().add_names({spec.name})


def name_obstacle(text: str, path: Path) -> str:
    """Returns what stopped a conversion, from OpenVINO's words: operators and nodes, and why where it says so.

    Args:
        text: Of its error.
        path: The ONNX model, whose order tells causes from what follows of them.
    """
    graphs = list(iterate_graphs(load_model(path, weights=False)))
    nodes = [node for graph in graphs for node in graph.node]
    missing = _NO_RULE.search(text)
    if missing:
        return f"it has no conversion for {', '.join(_name_operator(name, nodes) for name in missing[1].split(','))}"
    failed = [match.groupdict() for match in _FAILED_NODE.finditer(text)]
    causes = [found for found in failed if found["why"] != _CONSEQUENCE] or failed
    if causes:
        # OpenVINO calls a node by what it makes.
        order = {name: place for place, node in enumerate(nodes) for name in (node.name, *node.output)}
        place, cause = min(
            ((order.get(found["node"], len(nodes)), found) for found in causes), key=lambda pair: pair[0]
        )
        name = (nodes[place].name if place < len(nodes) else "") or cause["node"]
        return f"operator {cause['op']} (node {name}): {cause['why'].strip()}"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it does not say why"


def _name_operator(told: str, nodes: Sequence[Any]) -> str:
    """Returns OpenVINO's name of an operator, `Det-17` or `com.microsoft.Sorcery`, with the first node that is one."""
    kind = re.sub(r"-\d+$", "", told.strip())
    found = next((node for node in nodes if node.op_type == kind.rpartition(".")[2]), None)
    if found is None:
        return kind
    return f"{kind} (node {found.name or found.output[0]})"
