"""Brings a foreign ONNX model into the form that converts to fast and right TFLite operators.

Each step exists because of something that onnx2tf 2.6.9 was seen to do otherwise:

- shapes are frozen and everything that follows from them is folded, since a dynamic dimension becomes chains of
  SHAPE, SLICE and FILL that cut the graph into pieces for the XNNPACK delegate;
- MatMul with a constant becomes Gemm, since it otherwise becomes BATCH_MATMUL, which is slow and which per-channel
  quantization gets wrong; a constant on the left comes out with wrong values when a Transpose is before it;
- any spelling of GELU is written the one way that is fused to the GELU operator;
- a mean over rows and columns becomes a pooling, before which the feature map would be transposed back otherwise;
- If is taken apart, STFT becomes a convolution and SAME_LOWER numbers: it has none of them;
- float64 becomes float32, since TFLite computes nothing in it;
- outputs of rank 3 and more leave the graph flattened to rank 2, since they otherwise keep the channels-last layout.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from modelwright.core.onnx.facts import ONNX_DOMAINS, find_inputs, read_attribute
from modelwright.core.onnx.sparse import densify_graph
from modelwright.core.onnx.walk import find_subgraphs

from .branches import compute_both_branches, take_known_branches
from .doubles import narrow_doubles
from .graph import Array, Graph, Shape, infer
from .means import rewrite_spatial_means
from .operators import UnsupportedOperatorError
from .pads import write_pads
from .recurrent import unroll_recurrent
from .rewrite import drop_expands, keep_infinities, rewrite_gelus, rewrite_matmuls, rewrite_max_pools
from .spectrum import rewrite_spectra

FOLD_LIMIT_BYTES = 64 * 2**20
_MAX_ROUNDS = 12
_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Multinomial", "Bernoulli"}
_IDENTITIES = {"Identity", "Dropout"}


def prepare_graph(model: onnx.ModelProto, shapes: Mapping[str, Shape], *, infinities: bool = False) -> Graph:
    """Returns the graph with frozen shapes, folded and rewritten; outputs are still as they were.

    Args:
        model: Any ONNX model.
        shapes: Input name -> its shape, all dimensions known.
        infinities: Whether minus infinity has to stay infinite, at the price of some speed.
    """
    graph = _freeze(model, shapes)
    _fold_until_settled(graph)
    _take_branches(graph)
    _drop_identities(graph)
    graph.drop_unused()
    drop_expands(graph)
    if infinities:
        keep_infinities(graph)
    rewrite_matmuls(graph)
    rewrite_gelus(graph)
    write_pads(graph)
    rewrite_spectra(graph)
    rewrite_max_pools(graph)
    rewrite_spatial_means(graph)
    unroll_recurrent(graph)
    _drop_identities(graph)
    graph.drop_unused()
    _name_nodes(graph)
    return graph


def _freeze(model: onnx.ModelProto, shapes: Mapping[str, Shape]) -> Graph:
    if model.functions:
        from onnx import inliner

        model = inliner.inline_local_functions(model)
    frozen = onnx.ModelProto()
    frozen.CopyFrom(model)
    # Exporters list initializers and symbolic sizes here; both contradict the frozen shapes.
    del frozen.graph.value_info[:]
    densify_graph(frozen.graph)
    is_double = narrow_doubles(frozen)
    inputs = find_inputs(frozen.graph)
    del frozen.graph.input[:]
    for value in inputs:
        elem_type = value.type.tensor_type.elem_type
        frozen.graph.input.append(onnx.helper.make_tensor_value_info(value.name, elem_type, shapes[value.name]))
    for value in frozen.graph.output:
        value.type.tensor_type.ClearField("shape")
    graph = Graph(infer(frozen))
    if is_double:
        graph.notes.append("it computes in float32: TFLite has no arithmetic in float64")
    return graph


def _take_branches(graph: Graph) -> None:
    """Takes every If out of the graph.

    Raises:
        UnsupportedOperatorError: The outputs of two branches differ in shape, and only the inputs say which runs.
    """
    for _ in range(_MAX_ROUNDS):
        known = take_known_branches(graph)
        both = {} if known else compute_both_branches(graph)
        if not known and not both:
            return
        _infer_types(graph)
        _fold_until_settled(graph)
        for name, pairs in both.items():
            _require_one_shape(name, pairs, graph)
            graph.notes.append(f"If {name}: both branches are computed, as the inputs say which one counts")


def _require_one_shape(name: str, pairs: Sequence[tuple[str, str]], graph: Graph) -> None:
    for one, other in pairs:
        shapes = [graph.shapes.get(value) for value in (one, other)]
        if None in shapes or shapes[0] != shapes[1]:
            reason = f"its branches give outputs of different shapes ({shapes[0]} and {shapes[1]})"
            raise UnsupportedOperatorError("If", name, f"{reason}, and only the inputs say which one runs", ours=True)


def _fold_until_settled(graph: Graph) -> None:
    for _ in range(_MAX_ROUNDS):
        if not _fold_once(graph):
            return
        # What was folded (a Reshape's target, say) lets inference get further.
        _infer_types(graph)


def _infer_types(graph: Graph) -> None:
    inferred = Graph(infer(_strip_large(graph)))
    graph.shapes.update(inferred.shapes)
    graph.dtypes.update(inferred.dtypes)


def _strip_large(graph: Graph) -> onnx.ModelProto:
    """Returns a model for shape inference that does not carry the weights: only their shapes."""
    light = Graph(graph.to_model())
    light.constants = {name: array for name, array in graph.constants.items() if array.size <= 4096}
    large = [name for name in graph.constants if name not in light.constants]
    light.inputs = [*graph.inputs, *large]
    light.shapes = {name: graph.shapes[name] for name in light.inputs if name in graph.shapes}
    light.dtypes = dict(graph.dtypes)
    return light.to_model()


def _fold_once(graph: Graph) -> bool:
    changed = False
    kept = []
    for node in graph.nodes:
        values = _fold(node, graph)
        if values is None:
            kept.append(node)
            continue
        changed = True
        for name, value in zip(node.output, values, strict=False):
            if name:
                graph.set_constant(name, value)
    graph.nodes = kept
    return changed


def _fold(node: onnx.NodeProto, graph: Graph) -> list[Array] | None:
    """Returns a node's output values when they do not depend on the inputs' values."""
    if node.op_type == "Shape" and node.input[0] in graph.shapes:
        dims = graph.shapes[node.input[0]]
        part = dims[read_attribute(node, "start", 0) : read_attribute(node, "end", len(dims))]
        return [np.array(part, dtype=np.int64)]
    if node.op_type == "Size" and node.input[0] in graph.shapes:
        return [np.array(int(np.prod(graph.shapes[node.input[0]])), dtype=np.int64)]
    if any(name and name not in graph.constants for name in node.input):
        return None
    if node.op_type in _RANDOM or node.domain not in ONNX_DOMAINS or any(find_subgraphs(node)):
        return None
    size = sum(int(np.prod(graph.shapes.get(name, ()))) * 8 for name in node.output)
    if size > FOLD_LIMIT_BYTES:
        return None
    return _evaluate(node, graph)


def _evaluate(node: onnx.NodeProto, graph: Graph) -> list[Array] | None:
    if node.op_type == "Constant" and read_attribute(node, "value", None) is not None:
        return [numpy_helper.to_array(read_attribute(node, "value", None))]
    from onnx.reference import ReferenceEvaluator

    feeds = {name: graph.constants[name] for name in node.input if name}
    body = onnx.helper.make_graph(
        [node],
        "fold",
        [onnx.helper.make_tensor_value_info(name, graph.dtypes[name], array.shape) for name, array in feeds.items()],
        [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in node.output if name],
    )
    model = onnx.helper.make_model(body, opset_imports=graph.to_opsets())
    try:
        values = ReferenceEvaluator(model).run(None, feeds)
    except Exception:  # the reference implementation lacks some operators: the node then stays
        return None
    return [np.asarray(value) for value in values]


def _drop_identities(graph: Graph) -> None:
    outputs = set(graph.outputs)
    kept = []
    for node in graph.nodes:
        if node.op_type in _IDENTITIES and node.output[0] not in outputs and not any(node.output[1:]):
            graph.replace_input(node.output[0], node.input[0])
        else:
            kept.append(node)
    graph.nodes = kept


def _name_nodes(graph: Graph) -> None:
    for node in graph.nodes:
        if not node.name:
            node.name = graph.new_name(re.sub(r"\W", "_", f"{node.op_type}_{node.output[0]}"))


def finish_outputs(graph: Graph, *, flatten: bool = True) -> tuple[onnx.ModelProto, dict[str, str], dict[str, str]]:
    """Flattens the outputs and gives inputs and outputs names that every tool accepts.

    Args:
        graph: Is changed.
        flatten: Else outputs of rank 3 and more keep their shape, and the layout that the converter gives them.

    Returns:
        The model, ONNX input name -> its name now, ONNX output name -> its name now.
    """
    input_names = {name: graph.new_name(f"in_{_clean(name)}") for name in graph.inputs}
    for old, new in input_names.items():
        graph.replace_input(old, new)
        graph.shapes[new], graph.dtypes[new] = graph.shapes[old], graph.dtypes[old]
    output_names: dict[str, str] = {}
    roots = {name: _find_root(graph, name, {"Identity"}) for name in graph.outputs}
    finished: dict[str, str] = {}
    for name, root in roots.items():
        if root not in finished:  # one value under two names is one tensor
            # Of a copy that others do not read, what it copies is taken: onnx2tf would give that the copy's name.
            source = root if root in graph.producers() else input_names.get(name, name)
            finished[root] = _finish_output(graph, name, source, flatten=flatten)
        output_names[name] = finished[root]
    graph.inputs = list(input_names.values())
    graph.outputs = list(dict.fromkeys(output_names.values()))
    graph.drop_unused()
    return graph.to_model(), input_names, output_names


def _finish_output(graph: Graph, name: str, source: str, *, flatten: bool) -> str:
    """Adds what makes an output of `source`, flattened to [batch, ...]; returns its name."""
    shape, new = graph.shapes.get(name), graph.new_name(f"out_{_clean(name)}")
    consumers = graph.consumers()
    if flatten and shape is not None and len(shape) >= 3 and 0 not in shape:
        width = int(np.prod(shape[1:]))
        root = _find_root(graph, source, _SAME_VALUES)
        if root != source and len(consumers.get(root, ())) > 1 and graph.dtypes.get(source) == onnx.TensorProto.FLOAT:
            # onnx2tf takes reshapes that cancel out for a renaming and forgets who else reads the old name.
            zero = graph.add_constant(f"{new}_zero", np.zeros(1, np.float32))
            copy = graph.new_name(f"{new}_copy")
            graph.nodes.append(graph.make_node("Add", [source, zero], copy, stem=copy, shape=shape))
            source = copy
        target = graph.add_constant(f"{new}_shape", np.array([-1, width], dtype=np.int64))
        graph.nodes.append(graph.make_node("Reshape", [source, target], new, stem=new, shape=(shape[0], width)))
        return new
    maker = graph.producers().get(source)
    if source not in consumers or maker is None:
        graph.nodes.append(graph.make_node("Identity", [source], new, stem=new, shape=shape))
        return new
    # Not an Identity: onnx2tf gives its name to what it reads, even where other nodes still look for the old one.
    graph.replace_input(source, new)
    maker.output[list(maker.output).index(source)] = new
    graph.dtypes[new] = graph.dtypes[source]
    if shape is not None:
        graph.shapes[new] = shape
    return new


_SAME_VALUES = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten"})


def _find_root(graph: Graph, name: str, operators: Collection[str]) -> str:
    """Returns the tensor that `name` is a copy of, going back through operators that only rename or reshape."""
    makers = graph.producers()
    while name in makers and makers[name].op_type in operators:
        name = str(makers[name].input[0])
    return name


def _clean(name: str) -> str:
    return re.sub(r"\W", "_", name)
