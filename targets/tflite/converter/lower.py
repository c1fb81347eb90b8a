"""ONNX to an FP32 `.tflite` file by onnx2tf, with the layout, names and batch handling that a runner can rely on."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from .graph import Graph, Shape
from .inspect_file import read_output_shapes
from .operators import UnsupportedOperatorError, name_operator
from .polish import polish_file
from .prepare import finish_outputs, prepare_graph
from .rewrite import has_infinity
from .twin import (
    FIRST,
    SECOND,
    BatchPinnedError,
    align_constants,
    merge_files,
    merge_sizes,
    require_same_constants,
)


@dataclass(kw_only=True)
class Lowered:
    """A converted model.

    Attributes:
        data: The file.
        binding: What `TfliteRunner` needs to speak ONNX names, dtypes and shapes.
        has_infinities: Whether it writes finite numbers for infinities of the model.
        notes: What the user should know about it.
    """

    data: bytes
    binding: dict[str, Any]
    has_infinities: bool
    notes: list[str] = field(default_factory=list)


def lower_resizable(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], work: Path, *, infinities: bool = False
) -> Lowered:
    """Converts a model whose inputs all count samples along axis 0; the batch can be chosen at run time.

    Args:
        model: The ONNX model.
        shapes: Input name -> shape at batch 1.
        work: A folder for the converter's files.
        infinities: See `prepare_graph`.

    Raises:
        BatchPinnedError: Not possible for this model.
        UnsupportedOperatorError: TFLite lacks an operator.
    """
    graphs = [prepare_graph(model, _at_batch(shapes, batch), infinities=infinities) for batch in (FIRST, SECOND)]
    align_constants(*graphs)
    has_infinities = _has_infinities(graphs[0])
    output_shapes = [{name: graph.shapes.get(name) for name in graph.outputs} for graph in graphs]
    finished = [finish_outputs(graph) for graph in graphs]
    files = [
        run_onnx2tf(prepared, work / f"batch{batch}")
        for (prepared, _, _), batch in zip(finished, (FIRST, SECOND), strict=True)
    ]
    data = polish_file(merge_files(*files))
    _, input_names, output_names = finished[0]
    binding = {
        "dynamic_batch": True,
        "inputs": [_describe(name, new, model, shapes[name]) for name, new in input_names.items()],
        "outputs": [
            _describe(name, new, model, *_at_one(output_shapes[0][name], output_shapes[1][name]))
            for name, new in output_names.items()
        ],
    }
    return Lowered(data=data, binding=binding, has_infinities=has_infinities, notes=graphs[0].notes)


def lower_sizable(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], others: Mapping[str, Shape], work: Path, *, infinities: bool
) -> Lowered:
    """Converts a model whose inputs may have other sizes than the samples, and any batch.

    Args:
        model: The ONNX model.
        shapes: Input name -> shape at batch 1.
        others: The same with other sizes along all axes that are to be free.
        work: A folder for the converter's files.
        infinities: See `prepare_graph`.

    Raises:
        BatchPinnedError: Not possible for this model: something in the file depends on the sizes.
        UnsupportedOperatorError: TFLite lacks an operator.
    """
    graphs = {
        (position, batch): prepare_graph(model, _at_batch(sizes, batch), infinities=infinities)
        for position, sizes in enumerate((shapes, others))
        for batch in (FIRST, SECOND)
    }
    for position in (0, 1):
        align_constants(graphs[position, FIRST], graphs[position, SECOND])
    require_same_constants(graphs[0, FIRST], graphs[1, FIRST])
    expected = {at: {name: graph.shapes.get(name) for name in graph.outputs} for at, graph in graphs.items()}
    finished = {at: finish_outputs(graph, flatten=False) for at, graph in graphs.items()}
    files = {at: run_onnx2tf(prepared, work / "-".join(map(str, at))) for at, (prepared, _, _) in finished.items()}
    merged = [merge_files(files[position, FIRST], files[position, SECOND]) for position in (0, 1)]
    data = polish_file(merge_sizes(*merged))
    _, input_names, output_names = finished[0, FIRST]
    found = [read_output_shapes(file) for file in merged]
    inputs = []
    for name, new in input_names.items():
        pairs = enumerate(zip(shapes[name], others[name], strict=True))
        varies = [axis for axis, (one, other) in pairs if one != other]
        inputs.append({**_describe(name, new, model, shapes[name]), "varies": varies})
    outputs = []
    for name, new in output_names.items():
        at_one = [_at_one(expected[position, FIRST][name], expected[position, SECOND][name]) for position in (0, 1)]
        if at_one[0] == at_one[1] and len(at_one[0][0] or (0, 0, 0)) < 3:
            outputs.append(_describe(name, new, model, *at_one[0]))
        else:
            order = _find_order([shape for shape, _ in at_one], [shapes[new] for shapes in found], name)
            outputs.append({**_describe(name, new, model, None), "order": order})
    binding = {"dynamic_batch": True, "inputs": inputs, "outputs": outputs}
    return Lowered(data=data, binding=binding, has_infinities=False, notes=graphs[0, FIRST].notes)


def _find_order(expected: Sequence[Shape | None], found: Sequence[Shape], name: str) -> list[int]:
    """Returns how the axes of a file's output have to be sorted to be ONNX's: it may have the channels last."""
    rank = len(found[0])
    for order in (list(range(rank)), [0, rank - 1, *range(1, rank - 1)]):
        if all(tuple(shape[axis] for axis in order) == wanted for shape, wanted in zip(found, expected, strict=True)):
            return order
    raise BatchPinnedError(f"output {name} comes out in a shape of its own")


def lower_fixed(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], work: Path, *, infinities: bool = False
) -> Lowered:
    """Converts a model at exactly the given input shapes.

    Raises:
        UnsupportedOperatorError: TFLite lacks an operator.
    """
    graph = prepare_graph(model, shapes, infinities=infinities)
    has_infinities = _has_infinities(graph)
    output_shapes = {name: graph.shapes.get(name) for name in graph.outputs}
    prepared, input_names, output_names = finish_outputs(graph)
    data = polish_file(run_onnx2tf(prepared, work / "fixed"))
    binding = {
        "dynamic_batch": False,
        "inputs": [_describe(name, new, model, shapes[name]) for name, new in input_names.items()],
        "outputs": [_describe(name, new, model, output_shapes[name]) for name, new in output_names.items()],
    }
    return Lowered(data=data, binding=binding, has_infinities=has_infinities, notes=graph.notes)


def lower(
    model: onnx.ModelProto, shapes: Mapping[str, Shape], work: Path, *, resizes: bool, infinities: bool
) -> Lowered:
    """Converts a model at the given shapes, resizable where that is asked for and works.

    Args:
        model: The ONNX model.
        shapes: Input name -> shape of one sample's feed.
        work: A folder for the converter's files.
        resizes: Whether to try for a file that takes any batch size.
        infinities: See `prepare_graph`.
    """
    if not resizes:
        return lower_fixed(model, shapes, work, infinities=infinities)
    try:
        return lower_resizable(model, shapes, work, infinities=infinities)
    except (BatchPinnedError, UnsupportedOperatorError) as error:
        reason = str(error)
    lowered = lower_fixed(model, shapes, work, infinities=infinities)
    lowered.notes.append(f"the file runs one sample at a time: {reason}")
    return lowered


def _has_infinities(graph: Graph) -> bool:
    return any(has_infinity(node, graph) for node in graph.nodes)


def _at_batch(shapes: Mapping[str, Shape], batch: int) -> dict[str, Shape]:
    return {name: (batch, *shape[1:]) for name, shape in shapes.items()}


def _at_one(first: Shape | None, second: Shape | None) -> tuple[Shape | None, list[bool]]:
    """Returns an output's shape at batch 1 and which of its dimensions scale with the batch."""
    if first is None or second is None or len(first) != len(second):
        return None, []
    scales = [a != b for a, b in zip(first, second, strict=True)]
    return tuple(2 * a - b for a, b in zip(first, second, strict=True)), scales


def _describe(
    name: str, tensor: str, model: onnx.ModelProto, shape: Shape | None, scales: list[bool] | None = None
) -> dict[str, Any]:
    """Returns what the runner has to know of one input or output; the dtype is the model's, whatever the file's."""
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)}
    return {
        "name": name,
        "tensor": tensor,
        "dtype": onnx.helper.tensor_dtype_to_np_dtype(kinds[name]).name if kinds[name] else None,
        "shape": None if shape is None else list(shape),
        "scales_with_batch": scales,
    }


def run_onnx2tf(model: onnx.ModelProto, work: Path) -> bytes:
    """Runs onnx2tf's direct builder and returns the FP32 file.

    Raises:
        UnsupportedOperatorError: Names the operator and the node.
    """
    from onnx2tf.tflite_builder import export_tflite_model_flatbuffer_direct

    captured = io.StringIO()
    try:
        with contextlib.redirect_stdout(captured), contextlib.redirect_stderr(captured):
            result = export_tflite_model_flatbuffer_direct(
                onnx_graph=model,
                output_folder_path=str(work),
                output_file_name="model",
                keep_shape_absolutely_input_names=[value.name for value in model.graph.input],
                flatbuffer_direct_show_progress=False,
            )
    except Exception as error:
        raise name_operator(error, model) from error
    return Path(result["float32_tflite_path"]).read_bytes()
