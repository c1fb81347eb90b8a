"""Saved `torch.export` programs: from the exporter's to an artifact's, and back into something callable.

An artifact's program takes the signature's inputs in their order and returns its outputs in their order. For child
processes only: torch is heavy, and a program may be hostile.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError, ToolchainMissingError
from modelwright.core.program_operators import register_quantized_operators
from modelwright.core.records.exported import PROGRAM_CALL_FILE
from modelwright.core.records.signature import Signature
from modelwright.core.saved_program import find_code
from modelwright.core.versions import is_at_least
from modelwright.targets.pytorch.precision import LoweredCall, drop_assertions, make_functional
from modelwright.targets.readiness import require_import

LEAST_TORCH = "2.10"
"""Earlier versions could be made to run code by a file of plain tensors."""
_EXAMPLE_SIZE = 2
"""Of a dynamic dimension while capturing: torch takes a 1 for a constant."""


def import_torch() -> Any:
    """Imports torch.

    Raises:
        ToolchainMissingError: Absent, broken, or too old to read saved programs safely.
    """
    torch = require_import("torch", "torch")
    require_import("torch.export", "torch")
    if not is_at_least(torch.__version__, LEAST_TORCH):
        raise ToolchainMissingError(
            f"torch {torch.__version__} reads saved programs unsafely", hint=f"pip install 'torch>={LEAST_TORCH}'"
        )
    return torch


def lower_program(torch: Any, path: Path, signature: Signature, dtype: Any | None) -> Any:
    """Turns the exporter's program into an artifact's.

    Args:
        torch: The package.
        path: What the exporter saved.
        signature: Of the ONNX model.
        dtype: What compute operators run in; None leaves all in float32.

    Returns:
        The new `ExportedProgram`, without example inputs.

    Raises:
        BuildFailedError: torch cannot read or capture it.
    """
    files = {PROGRAM_CALL_FILE: ""}
    try:
        register_quantized_operators()
        program = torch.export.load(str(path), extra_files=files)
        call = json.loads(files[PROGRAM_CALL_FILE])
    except Exception as error:  # zip, JSON and schema errors
        raise BuildFailedError(f"torch cannot read {path.name}: {error}", hint="export the model again") from error
    if dtype is not None:
        program = make_functional(torch, program)
    module = _make_caller(torch, program, call, signature, dtype)
    try:
        lowered = _capture(torch, module, program, call, signature)
    except Exception as error:  # torch has classes of its own for guards, shapes and operators
        wanted = "" if dtype is None else f" in {str(dtype).removeprefix('torch.')}"
        raise BuildFailedError(
            f"torch cannot capture the program{wanted}: {_first_line(error)}",
            hint=None if dtype is None else "build the FP32 target; an operator may not know this precision",
            detail=str(error)[:4000],
        ) from error
    drop_assertions(lowered)
    for node in lowered.graph.nodes:
        node.meta.pop("stack_trace", None)
    lowered._example_inputs = None  # noqa: SLF001 - torch has no public name for it
    return lowered


def save_program(torch: Any, program: Any, path: Path) -> None:
    """Saves an artifact's program."""
    with path.open("wb") as file:
        torch.export.save(program, file)


def load_module(torch: Any, path: Path, device: str) -> Any:
    """Loads an artifact's program and returns it as a callable module on a device.

    Raises:
        MeasurementInvalidError: torch cannot read it, or might run code that it holds.
    """
    _require_plain(path)
    try:
        register_quantized_operators()
        program = torch.export.load(str(path))
        if device != "cpu":
            program = move_program(torch, program, device)
        # Without the checks of input shapes, which the harness makes: they cost time at every call.
        module = program.module(check_guards=False)
    except Exception as error:  # zip, JSON and schema errors
        raise MeasurementInvalidError(
            f"torch {torch.__version__} cannot load {path.name}: {_first_line(error)}",
            hint="build the artifact again with this version of torch",
            detail=str(error)[:4000],
        ) from error
    return module.requires_grad_(requires_grad=False)


def _require_plain(path: Path) -> None:
    """Refuses a program in which torch might run code: artifacts come from elsewhere."""
    try:
        found = find_code(path)
    except BadInputError as error:
        raise MeasurementInvalidError(
            f"torch cannot load {path.name}: it is damaged", hint="build the artifact again", detail=error.message
        ) from error
    if found:
        raise MeasurementInvalidError(
            f"{path.name} holds what may run code when torch reads it: {found[0]}",
            hint="build the artifact here, from a source that you trust",
        )


def move_program(torch: Any, program: Any, device: str) -> Any:
    """Moves a program to a device: weights, constants, and the devices that its operators name."""
    passes = require_import("torch.export.passes", "torch")

    def move(value: Any) -> Any:
        return torch.device(device) if isinstance(value, torch.device) else value

    # Torch's own pass looks at keywords alone in some versions, and not into the graphs of conditions and loops.
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.args = torch.fx.node.map_aggregate(node.args, move)
            node.kwargs = torch.fx.node.map_aggregate(node.kwargs, move)
    moved = passes.move_to_device_pass(program, device)
    for module in moved.graph_module.modules():  # the pass leaves the code that was generated for the old device
        if hasattr(module, "recompile"):
            module.recompile()
    return moved


def list_example_shapes(torch: Any, program: Any, signature: Signature) -> dict[str, list[int]]:
    """Returns input name -> a shape that an artifact's program takes, with a batch of 1 where that may vary."""
    inputs = set(program.graph_signature.user_inputs)
    nodes = [node for node in program.graph.nodes if node.op == "placeholder" and node.name in inputs]
    shapes = {}
    for spec, node in zip(signature.inputs, nodes, strict=True):
        sizes = node.meta["val"].shape
        shapes[spec.name] = [
            1 if axis == 0 and isinstance(size, torch.SymInt) else _size_example(torch, size)
            for axis, size in enumerate(sizes)
        ]
    return shapes


def _make_caller(torch: Any, program: Any, call: Mapping[str, Any], signature: Signature, dtype: Any | None) -> Any:
    """Wraps a program so that it takes and returns flat tensors in the signature's order."""
    constants = [
        getattr(spec.arg, "value", None)
        for spec in program.graph_signature.input_specs
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT
    ]
    inputs = [call["inputs"][spec.name] for spec in signature.inputs]
    outputs = [call["outputs"][spec.name] for spec in signature.outputs]

    class Caller(torch.nn.Module):  # type: ignore[misc]  # torch is imported here only
        def __init__(self) -> None:
            super().__init__()
            self.program = program.module(check_guards=False)
            self.lowered = LoweredCall(torch, self.program, dtype)

        def forward(self, *tensors: Any) -> tuple[Any, ...]:
            flat = list(constants)
            for place, tensor in zip(inputs, tensors, strict=True):
                flat[place] = tensor
            values = self.lowered.run(flat)
            return tuple(values[place] for place in outputs)

    return Caller()


def _capture(torch: Any, module: Any, program: Any, call: Mapping[str, Any], signature: Signature) -> Any:
    """Exports the wrapped program with the dynamic dimensions that it was captured with."""
    places = [
        getattr(spec.arg, "name", None)
        for spec in program.graph_signature.input_specs
        if spec.kind == torch.export.graph_signature.InputKind.USER_INPUT
    ]
    nodes = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    dims: dict[str, Any] = {}
    examples, shapes = [], []
    for spec in signature.inputs:
        value = nodes[places[call["inputs"][spec.name]]].meta["val"]
        sizes = [_size_example(torch, size) for size in value.shape]
        examples.append(torch.zeros(sizes, dtype=value.dtype))
        shapes.append(
            {
                axis: _name_dimension(torch, size, program.range_constraints, dims)
                for axis, size in enumerate(value.shape)
                if isinstance(size, torch.SymInt)
            }
            or None
        )
    return torch.export.export(module, tuple(examples), dynamic_shapes=(tuple(shapes),), strict=False)


def _size_example(torch: Any, size: Any) -> int:
    if not isinstance(size, torch.SymInt):
        return int(size)
    return max(int(size.node.hint or _EXAMPLE_SIZE), _EXAMPLE_SIZE)


def _name_dimension(torch: Any, size: Any, ranges: Mapping[Any, Any], dims: dict[str, Any]) -> Any:
    """Returns a dimension of the size's own symbol, the same one wherever the symbol occurs."""
    expression = size.node.expr
    if not expression.is_Symbol:  # such as 2*s0: torch finds it again
        return torch.export.Dim.AUTO
    name = str(expression)
    if name not in dims:
        found = ranges.get(expression)
        upper = None if found is None or not found.upper.is_Integer else int(found.upper)
        lower = 1 if found is None or not found.lower.is_Integer else max(1, int(found.lower))
        dims[name] = torch.export.Dim(name, min=lower, max=upper)
    return dims[name]


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
