"""From a PyTorch module to an ONNX file, with a dynamic batch where the module allows it. For child processes only."""

from __future__ import annotations

import inspect
import json
import re
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.onnx.facts import list_initializers
from modelwright.core.onnx.walk import iterate_graphs, iterate_tensors
from modelwright.core.records.exported import PROGRAM_CALL_FILE
from modelwright.core.samples.python_source import shorten_traceback
from modelwright.exporters.torch.source import TorchSource, import_torch

OPSET = 18
"""What torch's exporter writes without a conversion, and what ONNX Runtime, OpenVINO, onnx2tf and TensorRT all read."""
_EMBEDDED_BYTES = 1536 * 2**20
"""Larger weights go into a file of their own: protobuf ends at 2 GiB."""
_SYMBOL = re.compile(r"^[su]\d+$")
"""torch's own names of dynamic sizes: `s77`."""
_MISSING_OPERATOR = re.compile(r"No (?:ONNX|decomposition)[^\n]*?(\w+[.:]{1,2}[\w.]*)", re.IGNORECASE)
_UNKNOWN_OUTPUT = re.compile(r"Found <class '([^']+)'> in output")
_MOST_CAUSES = 10
_DETAIL_CHARACTERS = 4000


@dataclass(kw_only=True)
class Captured:
    """A module captured by torch.export, with the inputs that it was captured on.

    Attributes:
        program: The `ExportedProgram`.
        leaves: The example inputs' tensors, flat, in the order of the ONNX inputs.
        structure: How the leaves make up the call; see `call_module`.
        input_names: One a leaf.
        batched: Which leaves have the batch on axis 0.
        batch_is_dynamic: Whether their first dimension may vary.
        output_names: ONNX output name -> its place among the flat outputs; empty before the conversion.
    """

    program: Any
    leaves: list[Any]
    structure: tuple[Any, list[Any], list[int]]
    input_names: list[str]
    batched: list[bool]
    batch_is_dynamic: bool
    output_names: dict[str, int] = field(default_factory=dict)


def capture(source: TorchSource, *, dynamic: bool) -> Captured:
    """Captures a module with torch.export; a program is captured already and taken as it is.

    Args:
        source: The module and its example inputs.
        dynamic: Make the batch dynamic.

    Raises:
        BadInputError: The module fails on its own example inputs.
        BuildFailedError: torch.export cannot capture it.
    """
    torch = import_torch()
    tree = torch.utils._pytree  # noqa: SLF001 - torch has no public name for it
    paths, spec = tree.tree_flatten_with_path((source.args, source.kwargs))
    values = [value for _, value in paths]
    positions = [index for index, value in enumerate(values) if isinstance(value, torch.Tensor)]
    if not positions:
        raise BadInputError(f"the example inputs of {source.name} hold no tensor")
    leaves = [values[position] for position in positions]
    names = [_name_leaf(tree, paths[position][0], source) for position in positions]
    batched = _find_batched(leaves, [name in source.whole for name in names])
    if source.program is None:
        leaves = _fit_batch(torch, leaves, batched, source, dynamic=dynamic)
    structure = (spec, values, positions)
    captured = Captured(
        program=source.program,
        leaves=leaves,
        structure=structure,
        input_names=names,
        batched=batched,
        batch_is_dynamic=dynamic,
    )
    try:
        call_module(source.module, captured, leaves)
    except Exception as error:
        described = zip(captured.input_names, leaves, strict=True)
        sizes = ", ".join(f"{name} {list(leaf.shape)}" for name, leaf in described)
        raise BadInputError(
            f"{source.name} fails on its example inputs ({sizes}): {type(error).__name__}: {error}",
            hint="check the example inputs or the samples: names, shapes and dtypes",
            detail=shorten_traceback(error),
        ) from error
    if source.program is not None:
        captured.batch_is_dynamic = _has_dynamic_batch(torch, source.program)
        return captured
    # Clones: torch.export leaves its marks on the tensors, and the next capture would obey them.
    args, kwargs = _rebuild(captured, [leaf.clone() for leaf in leaves])
    shapes = None
    if dynamic:
        # One name for all: inputs that never meet would otherwise get batches that vary apart.
        batch = torch.export.Dim("batch", min=1)
        marks = [{0: batch} if flag else None for flag in batched]
        marked_args, marked_kwargs = _rebuild(captured, marks, rest=None)
        shapes = _join_shapes(source, marked_args, marked_kwargs)
    try:
        captured.program = torch.export.export(source.module, args, kwargs, dynamic_shapes=shapes, strict=False)
    except Exception as error:
        reason, hint = _explain_capture(error)
        raise BuildFailedError(
            f"torch.export cannot capture {source.name}: {reason}", hint=hint, detail=str(error)[:_DETAIL_CHARACTERS]
        ) from error
    return captured


def _explain_capture(error: BaseException) -> tuple[str, str]:
    """Returns why a module cannot be captured, and what helps."""
    chain = list(_iterate_causes(error))
    frames = [frame for cause in chain for frame, _ in traceback.walk_tb(cause.__traceback__)]
    packed = import_torch().nn.utils.rnn.PackedSequence
    if any(isinstance(value, packed) for frame in frames for value in frame.f_locals.values()):
        return (
            "it packs sequences (pack_padded_sequence), and how depends on the values of their lengths",
            "run the recurrent layer on the padded batch, and take each sequence's last step with "
            "outputs.gather(1, (lengths - 1).view(-1, 1, 1).expand(-1, 1, outputs.shape[2]))",
        )
    unknown = _UNKNOWN_OUTPUT.search(str(error))
    if unknown:
        return (
            f"it returns an object of type {unknown[1].rpartition('.')[2]}, of which torch does not know the tensors",
            "return tensors, alone or in a tuple, a list, a dict or a dataclass",
        )
    return _summarize(error), (
        "Python control flow that depends on the values of tensors is the usual reason: use torch.where"
    )


def _iterate_causes(error: BaseException) -> Iterator[BaseException]:
    current: BaseException | None = error
    for _ in range(_MOST_CAUSES):
        if current is None:
            return
        yield current
        current = current.__cause__ or current.__context__


def call_module(module: Any, captured: Captured, leaves: Sequence[Any]) -> list[Any]:
    """Calls the module on flat inputs and returns its output tensors, flat."""
    torch = import_torch()
    args, kwargs = _rebuild(captured, [leaf.clone() for leaf in leaves])
    with torch.no_grad():
        outputs = module(*args, **kwargs)
    flat = torch.utils._pytree.tree_leaves(outputs)  # noqa: SLF001
    return [value for value in flat if isinstance(value, torch.Tensor)]


def write_onnx(source: TorchSource, captured: Captured, path: Path) -> None:
    """Converts a captured module and writes it; large weights go to `NAME.data`.

    Raises:
        BuildFailedError: An operator has no ONNX form; named where torch says which.
        BadInputError: `output_names` does not fit the outputs.
    """
    torch = import_torch()
    captured.output_names = name_outputs(source, captured)
    try:
        program = torch.onnx.export(
            captured.program,
            dynamo=True,
            opset_version=OPSET,
            verbose=False,
            input_names=captured.input_names,
            output_names=list(captured.output_names),
        )
    except Exception as error:
        raise BuildFailedError(
            f"{source.name} cannot be converted to ONNX: {_summarize(error)}",
            hint="replace that operation by one that has an ONNX form",
            detail=str(error)[:_DETAIL_CHARACTERS],
        ) from error
    _keep_names_apart(program.model.graph)
    weights_bytes = sum(t.numel() * t.element_size() for t in captured.program.state_dict.values())
    program.save(str(path), external_data=weights_bytes > _EMBEDDED_BYTES)
    _clean(path)


def _keep_names_apart(graph: Any) -> None:
    """Renames values inside a graph that are called as an input or output is: torch gives those names afterwards."""
    ends = [*graph.inputs, *graph.outputs]
    taken = {value.name for value in ends}
    known = set(map(id, ends))
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    for value in (*inner, *graph.initializers.values()):
        if value.name in taken and id(value) not in known:
            value.name = f"{value.name}_inside"


def write_program(
    source: TorchSource,
    captured: Captured,
    path: Path,
    examples: tuple[tuple[Any, ...], dict[str, Any]] | None = None,
) -> bool:
    """Saves a captured module for the targets that run PyTorch; notes it where torch cannot.

    The file holds the graph, the weights, and under `PROGRAM_CALL_FILE` how ONNX names map to the program's flat inputs
    and outputs. It holds no paths of this machine, and no example inputs, which may be a user's samples, but those that
    are given.

    Args:
        source: Where it comes from; takes the note.
        captured: The module, with its outputs named.
        path: The file.
        examples: Example inputs to save with it, by position and by name.

    Returns:
        Whether it was saved.
    """
    torch = import_torch()
    program = captured.program
    for module in program.graph_module.modules():
        for node in getattr(getattr(module, "graph", None), "nodes", ()):
            node.meta.pop("stack_trace", None)
    call = {"inputs": _find_places(torch, captured), "outputs": captured.output_names}
    own = program.example_inputs
    try:
        program._example_inputs = examples  # noqa: SLF001 - torch has no public name for it
        with path.open("wb") as file:  # a path would leave its name in the archive, and so in its hash
            torch.export.save(program, file, extra_files={PROGRAM_CALL_FILE: json.dumps(call)})
    except Exception as error:  # the serializer raises classes of its own for what it does not know
        path.unlink(missing_ok=True)
        reason = f"torch cannot save {source.name}: {_summarize(error)}"
        source.notes.append(f"the targets that run PyTorch cannot be built, for {reason}")
        return False
    finally:
        program._example_inputs = own  # noqa: SLF001
    return True


def _find_places(torch: Any, captured: Captured) -> dict[str, int]:
    """Returns input name -> its place among the program's flat inputs, constants included."""
    args, kwargs = _rebuild(captured, list(captured.input_names), rest=None)
    spec = captured.program.call_spec.in_spec
    kwargs = torch.export._tree_utils.reorder_kwargs(kwargs, spec)  # noqa: SLF001
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))  # noqa: SLF001
    return {leaf: place for place, leaf in enumerate(leaves) if leaf is not None}


def _find_batched(leaves: Sequence[Any], whole: Sequence[bool]) -> list[bool]:
    """Which inputs carry the batch: those whose first dimension is that of the first input with one."""
    sizes = [int(leaf.shape[0]) if leaf.dim() and not one else None for leaf, one in zip(leaves, whole, strict=True)]
    batch = next((size for size in sizes if size is not None), None)
    return [size is not None and size == batch for size in sizes]


def _fit_batch(torch: Any, leaves: list[Any], batched: list[bool], source: TorchSource, *, dynamic: bool) -> list[Any]:
    """Doubles a batch of 1 for a dynamic batch; takes one row of the samples for a fixed one."""
    rows = next((int(leaf.shape[0]) for leaf, flag in zip(leaves, batched, strict=True) if flag), None)
    fitted = []
    for leaf, flag in zip(leaves, batched, strict=True):
        value = leaf
        if flag and dynamic and rows == 1:
            value = torch.cat([leaf, leaf])
        elif flag and not dynamic and source.examples_from_samples:
            value = leaf[:1]
        fitted.append(value)
    return fitted


def _rebuild(captured: Captured, leaves: Sequence[Any], rest: Any = ...) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Puts flat tensors back into (args, kwargs); other values stay, or become `rest` when it is given."""
    torch = import_torch()
    spec, values, positions = captured.structure
    full = list(values) if rest is ... else [rest] * len(values)
    for position, leaf in zip(positions, leaves, strict=True):
        full[position] = leaf
    args, kwargs = torch.utils._pytree.tree_unflatten(full, spec)  # noqa: SLF001
    return args, kwargs


def _join_shapes(source: TorchSource, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Returns dynamic shapes as torch.export wants them: by parameter name, `*args` as one tuple under its name."""
    if not args:
        return kwargs
    bound = inspect.signature(source.module.forward).bind(*args, **kwargs)
    return dict(bound.arguments)


def _name_leaf(tree: Any, path: Sequence[Any], source: TorchSource) -> str:
    """Names an input after forward's parameter: `x`, and `boxes_0` for an element of a list."""
    kind, *rest = re.findall(r"\w+", tree.keystr(tuple(path)))
    if kind == "0":  # a positional argument; all others carry their parameter's name
        positional = [
            parameter.name
            for parameter in inspect.signature(source.module.forward).parameters.values()
            if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        ]
        index = int(rest[0])
        rest[0] = positional[index] if index < len(positional) else f"input_{index}"
    return "_".join(rest)


def name_outputs(source: TorchSource, captured: Captured) -> dict[str, int]:
    """Names outputs: as the module says, else after the keys of a dict, else `output`, `output_0`, ...

    Returns:
        Name -> its place among the flat outputs, which may hold other values than tensors.
    """
    torch = import_torch()
    tree = torch.utils._pytree  # noqa: SLF001
    args, kwargs = _rebuild(captured, [leaf.clone() for leaf in captured.leaves])
    with torch.no_grad():
        paths, _ = tree.tree_flatten_with_path(source.module(*args, **kwargs))
    places = [place for place, (_, value) in enumerate(paths) if isinstance(value, torch.Tensor)]
    keys = ["_".join(re.findall(r"\w+", tree.keystr(tuple(paths[place][0])))) for place in places]
    if source.output_names is not None:
        if len(source.output_names) != len(keys):
            raise BadInputError(
                f"{source.name}: output_names has {len(source.output_names)} names, "
                f"the module returns {len(keys)} tensors"
            )
        names = list(source.output_names)
    elif len(keys) == 1 and keys[0] in ("", "0"):
        names = ["output"]
    else:
        names = [f"output_{key}" if key[:1].isdigit() else key for key in keys]
    taken = set(captured.input_names)
    names = [f"{name}_out" if name in taken and source.output_names is None else name for name in names]
    if len({*names, *captured.input_names}) != len(names) + len(captured.input_names):
        twice = f"{', '.join(captured.input_names)}; {', '.join(names)}"
        raise BadInputError(f"{source.name}: a name occurs twice among inputs and outputs: {twice}")
    return dict(zip(names, places, strict=True))


def _has_dynamic_batch(torch: Any, program: Any) -> bool:
    names = set(program.graph_signature.user_inputs)
    shapes = [node.meta["val"].shape for node in program.graph.nodes if node.op == "placeholder" and node.name in names]
    return any(len(shape) > 0 and isinstance(shape[0], torch.SymInt) for shape in shapes)


def _clean(path: Path) -> None:
    """Drops what makes two exports differ or tools stumble, and gives dynamic dimensions their names.

    Stack traces hold the exporter's paths. The `value_info` of initializers makes ONNX Runtime's quantizers fail on
    any transposed weight.
    """
    import onnx

    model = onnx.load(str(path), load_external_data=False)
    del model.metadata_props[:]
    renamed = _name_dimensions(model.graph.input)
    for graph in iterate_graphs(model):
        graph.doc_string = ""
        del graph.metadata_props[:]
        for node in graph.node:
            node.doc_string = ""
            del node.metadata_props[:]
        constants = set(list_initializers(graph))
        kept = [value for value in graph.value_info if value.name not in constants]
        del graph.value_info[:]
        graph.value_info.extend(kept)
        for value in [*graph.value_info, *(() if hasattr(graph, "attribute") else (*graph.input, *graph.output))]:
            del value.metadata_props[:]
            for dimension in value.type.tensor_type.shape.dim:
                if dimension.dim_param:
                    dimension.dim_param = re.sub(
                        r"\b\w+\b", lambda found: renamed.get(found[0], found[0]), dimension.dim_param
                    )
    for tensor in iterate_tensors(model):
        del tensor.metadata_props[:]
    path.write_bytes(model.SerializeToString(deterministic=True))


def _name_dimensions(inputs: Sequence[Any]) -> dict[str, str]:
    """Returns torch's symbol -> name: `batch` for the first on axis 0, `dim_K` for others."""
    renamed: dict[str, str] = {}
    for value in inputs:
        for axis, dimension in enumerate(value.type.tensor_type.shape.dim):
            symbol = dimension.dim_param
            if not _SYMBOL.match(symbol) or symbol in renamed:
                continue
            name = "batch" if axis == 0 else f"dim_{axis}"
            if name in renamed.values():
                name = f"{name}_{len(renamed)}"
            renamed[symbol] = name
    return renamed


def _summarize(error: BaseException) -> str:
    """Returns the line of torch's message that names the reason."""
    chain = list(_iterate_causes(error))
    text = "\n".join(str(item) for item in chain)
    operator = _MISSING_OPERATOR.search(text)
    if operator:
        return f"no ONNX form of the operator {operator[1]}"
    lines = [line.strip() for line in str(chain[-1] if "Failed to" in str(error)[:200] else error).splitlines()]
    useful = [line for line in lines if line and not line.startswith(("#", "*", "`", "⬆"))]
    return (useful[0] if useful else type(error).__name__)[:300]
