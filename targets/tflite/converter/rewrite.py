"""Rewrites of single ONNX patterns that onnx2tf would turn into slower or wrong TFLite operators."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from modelwright.core.onnx.facts import read_attribute

from .graph import Graph, is_scalar


def rewrite_matmuls(graph: Graph) -> None:
    """Turns every MatMul with a constant matrix into Gemm, which becomes FULLY_CONNECTED."""
    consumers = graph.consumers()
    outputs = set(graph.outputs)
    rewritten: list[onnx.NodeProto] = []
    absorbed: set[str] = set()
    for node in graph.nodes:
        if node.output and node.output[0] in absorbed:
            continue
        if node.op_type != "MatMul" or node.output[0] not in graph.shapes:
            rewritten.append(node)
            continue
        left, right = node.input
        if right in graph.constants and left not in graph.constants:
            bias = _find_bias(node, graph, consumers, outputs)
            if bias is not None:
                absorbed.add(bias[1].output[0])
            rewritten.extend(_make_gemm(node, graph, bias))
        elif left in graph.constants and right not in graph.constants:
            rewritten.extend(_make_left_gemm(node, graph))
        else:
            rewritten.append(node)
    graph.nodes = rewritten


def _find_bias(
    node: onnx.NodeProto, graph: Graph, consumers: Mapping[str, list[onnx.NodeProto]], outputs: set[str]
) -> tuple[str, onnx.NodeProto] | None:
    """Returns the constant added to a MatMul's result, one number a column, and the Add that does it."""
    readers = consumers.get(node.output[0], [])
    if len(readers) != 1 or readers[0].op_type != "Add" or node.output[0] in outputs:
        return None
    other = next((name for name in readers[0].input if name != node.output[0]), "")
    width = graph.constants[node.input[1]].shape[-1]
    bias = graph.constants.get(other)
    if (
        bias is None
        or bias.size != width
        or bias.shape[-1:] != (width,)
        or bias.ndim > len(graph.shapes[node.output[0]])
    ):
        return None
    return other, readers[0]


def _make_gemm(node: onnx.NodeProto, graph: Graph, bias: tuple[str, onnx.NodeProto] | None) -> list[onnx.NodeProto]:
    """Writes `x @ constant (+ bias)` as Reshape, Gemm, Reshape; rank 2 needs the Gemm alone."""
    left, right = node.input
    weight = graph.constants[right]
    shape = graph.shapes.get(left)
    if weight.ndim != 2 or shape is None or len(shape) < 2:
        return [node] if bias is None else [node, bias[1]]
    depth, width = weight.shape
    stem = node.name or node.output[0]
    output = node.output[0] if bias is None else bias[1].output[0]
    inputs = [graph.add_constant(f"{stem}_weight", np.ascontiguousarray(weight.T))]
    if bias is not None:
        inputs.append(graph.add_constant(f"{stem}_bias", graph.constants[bias[0]].reshape(width)))
    rows = int(np.prod(shape[:-1]))
    if len(shape) == 2:
        return [graph.make_node("Gemm", [left, *inputs], output, stem=stem, shape=(rows, width), transB=1)]
    flat = graph.new_name(f"{stem}_rows")
    product = graph.new_name(f"{stem}_product")
    into = graph.add_constant(f"{stem}_into", np.array([-1, depth], dtype=np.int64))
    back = graph.add_constant(f"{stem}_back", np.array([*shape[:-1], width], dtype=np.int64))
    return [
        graph.make_node("Reshape", [left, into], flat, stem=f"{stem}_flatten", shape=(rows, depth)),
        graph.make_node("Gemm", [flat, *inputs], product, stem=stem, shape=(rows, width), transB=1),
        graph.make_node("Reshape", [product, back], output, stem=f"{stem}_restore", shape=(*shape[:-1], width)),
    ]


def _make_left_gemm(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    """Writes `constant @ x` as the transpose of `transposed x @ transposed constant`."""
    left, right = node.input
    weight = graph.constants[left]
    shape = graph.shapes.get(right)
    if weight.ndim != 2 or shape is None or len(shape) < 2:
        return [node]
    stem = node.name or node.output[0]
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned_shape = tuple(shape[axis] for axis in order)
    turned = graph.new_name(f"{stem}_turned")
    product = graph.new_name(f"{stem}_columns")
    inner = onnx.helper.make_node(
        "MatMul", [turned, graph.add_constant(f"{stem}_turned_weight", np.ascontiguousarray(weight.T))], [product]
    )
    inner.name = graph.new_name(f"{stem}_inner")
    before = graph.make_node("Transpose", [right], turned, stem=f"{stem}_before", shape=turned_shape, perm=order)
    graph.shapes[product] = (*turned_shape[:-1], weight.shape[0])
    graph.dtypes[product] = graph.dtypes[right]
    final_shape = tuple(graph.shapes[product][axis] for axis in order)
    after = graph.make_node("Transpose", [product], node.output[0], stem=f"{stem}_after", shape=final_shape, perm=order)
    return [before, *_make_gemm(inner, graph, None), after]


def rewrite_gelus(graph: Graph) -> None:
    """Rewrites `x * 0.5 * (1 + erf(x / sqrt 2))`, however its factors are grouped."""
    producers = graph.producers()
    consumers = graph.consumers()
    replaced: dict[int, list[onnx.NodeProto]] = {}
    for erf in (node for node in graph.nodes if node.op_type == "Erf"):
        source = _find_erf_argument(producers.get(erf.input[0]), graph)
        adder = _only_reader(erf.output[0], "Add", consumers)
        if source is None or adder is None or not any(is_scalar(graph.constants.get(n), 1.0) for n in adder.input):
            continue
        last = _find_gelu_end(adder, source, graph, producers, consumers)
        if last is not None:
            replaced[id(last)] = _make_gelu(source, last.output[0], graph)
    if replaced:
        graph.nodes = [new for node in graph.nodes for new in replaced.get(id(node), [node])]


def _only_reader(name: str, op_type: str, consumers: Mapping[str, list[onnx.NodeProto]]) -> onnx.NodeProto | None:
    readers = consumers.get(name, [])
    return readers[0] if len(readers) == 1 and readers[0].op_type == op_type else None


def _find_erf_argument(node: onnx.NodeProto | None, graph: Graph) -> str | None:
    if node is None or node.op_type not in ("Div", "Mul"):
        return None
    if node.op_type == "Div":
        return node.input[0] if is_scalar(graph.constants.get(node.input[1]), 2**0.5) else None
    for name, other in (tuple(node.input), tuple(node.input)[::-1]):
        if is_scalar(graph.constants.get(other), 0.5**0.5):
            return str(name)
    return None


def _find_gelu_end(
    adder: onnx.NodeProto,
    source: str,
    graph: Graph,
    producers: Mapping[str, onnx.NodeProto],
    consumers: Mapping[str, list[onnx.NodeProto]],
) -> onnx.NodeProto | None:
    """Follows the products after `1 + erf` until both the source and one half were multiplied in."""
    has_source = has_half = False
    current = adder
    while not (has_source and has_half):
        product = _only_reader(current.output[0], "Mul", consumers)
        if product is None:
            return None
        other = next(name for name in product.input if name != current.output[0])
        made = producers.get(other)
        if other == source and not has_source:
            has_source = True
        elif is_scalar(graph.constants.get(other), 0.5) and not has_half:
            has_half = True
        elif made is not None and made.op_type == "Mul" and source in made.input and not (has_source or has_half):
            rest = next((name for name in made.input if name != source), source)
            if not is_scalar(graph.constants.get(rest), 0.5):
                return None
            has_source = has_half = True
        else:
            return None
        current = product
    return current


def _make_gelu(source: str, output: str, graph: Graph) -> list[onnx.NodeProto]:
    dtype = onnx.helper.tensor_dtype_to_np_dtype(graph.dtypes.get(source, onnx.TensorProto.FLOAT))
    root, one, half = (
        graph.add_constant(f"{output}_gelu_constant", np.array(value, dtype=dtype)) for value in (2**0.5, 1.0, 0.5)
    )
    names = [graph.new_name(f"{output}_gelu_{step}") for step in ("scaled", "erf", "shifted", "gated")]
    steps = [("Div", [source, root]), ("Erf", names[:1]), ("Add", [names[1], one]), ("Mul", [source, names[2]])]
    shape = graph.shapes.get(source)
    nodes = [
        graph.make_node(op_type, inputs, name, stem=f"{name}_node", shape=shape)
        for (op_type, inputs), name in zip(steps, names, strict=True)
    ]
    return [*nodes, graph.make_node("Mul", [names[3], half], output, stem=f"{output}_gelu", shape=shape)]


_NON_NEGATIVE = {"Relu", "Sigmoid", "Softmax", "Abs", "Exp", "HardSigmoid", "Softplus"}
_KEEPS_SIGN = {"MaxPool", "AveragePool", "GlobalAveragePool", "Identity", "Reshape", "Transpose"}


def rewrite_max_pools(graph: Graph) -> None:
    """Pads a max pool with zeros where its input is never negative.

    onnx2tf pads with the lowest float, a range that no 8-bit tensor can hold.
    """
    producers = graph.producers()
    rewritten: list[onnx.NodeProto] = []
    for node in graph.nodes:
        rewritten.extend(_pad_before(node, graph) if _can_pad_with_zero(node, graph, producers) else [node])
    graph.nodes = rewritten


def _can_pad_with_zero(node: onnx.NodeProto, graph: Graph, producers: Mapping[str, onnx.NodeProto]) -> bool:
    if node.op_type != "MaxPool" or len(node.output) > 1 or read_attribute(node, "ceil_mode", 0):
        return False
    if not any(read_attribute(node, "pads", [])) or graph.opset < 11 or len(graph.shapes.get(node.input[0], ())) < 3:
        return False
    source = producers.get(node.input[0])
    while source is not None and source.op_type in _KEEPS_SIGN:
        source = producers.get(source.input[0])
    if source is None:
        return False
    if source.op_type == "Clip":
        low = graph.constants.get(source.input[1]) if len(source.input) > 1 else None
        return low is not None and float(low.min()) >= 0
    return source.op_type in _NON_NEGATIVE


def _pad_before(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    shape = graph.shapes[node.input[0]]
    spatial = len(shape) - 2
    pads = list(read_attribute(node, "pads", []))
    sizes = (*shape[:2], *(d + pads[i] + pads[spatial + i] for i, d in enumerate(shape[2:])))
    widths = graph.add_constant(
        f"{node.name}_pads", np.array([0, 0, *pads[:spatial], 0, 0, *pads[spatial:]], dtype=np.int64)
    )
    padded = graph.new_name(f"{node.name or node.output[0]}_padded")
    pad = graph.make_node("Pad", [node.input[0], widths], padded, stem=f"{padded}_node", shape=sizes)
    pool = onnx.NodeProto()
    pool.CopyFrom(node)
    pool.input[0] = padded
    for index, attribute in enumerate(pool.attribute):
        if attribute.name == "pads":
            del pool.attribute[index]
            break
    return [pad, pool]


_BROADCASTING = {"Add", "Sub", "Mul", "Div", "Pow", "Where", "Equal", "Greater", "Less", "And", "Or", "Max", "Min"}


def drop_expands(graph: Graph) -> None:
    """Removes an Expand where its readers broadcast anyway: onnx2tf would multiply by ones of the full shape."""
    consumers = graph.consumers()
    kept = []
    for node in graph.nodes:
        readers = consumers.get(node.output[0], []) if node.op_type == "Expand" else []
        if readers and node.output[0] not in graph.outputs and all(_broadcasts(r, node, graph) for r in readers):
            graph.replace_input(node.output[0], node.input[0])
        else:
            kept.append(node)
    graph.nodes = kept


def _broadcasts(reader: onnx.NodeProto, expand: onnx.NodeProto, graph: Graph) -> bool:
    names = [expand.input[0] if name == expand.output[0] else name for name in reader.input]
    if reader.op_type not in _BROADCASTING or any(name not in graph.shapes for name in (*names, reader.output[0])):
        return False
    return np.broadcast_shapes(*(graph.shapes[name] for name in names)) == graph.shapes[reader.output[0]]


def keep_infinities(graph: Graph) -> None:
    """Writes `Where(mask, x, -inf)` as `x + log(mask)`.

    onnx2tf writes the lowest float for minus infinity, and a row of attention that is masked altogether is then an
    average where ONNX has NaN.
    """
    rewritten: list[onnx.NodeProto] = []
    for node in graph.nodes:
        rewritten.extend(_add_logarithm(node, graph) if has_infinity(node, graph) else [node])
    graph.nodes = rewritten


def has_infinity(node: onnx.NodeProto, graph: Graph) -> bool:
    """Whether a node is a Where between what varies and one infinity."""
    if node.op_type != "Where" or node.output[0] not in graph.shapes:
        return False
    infinite = [name for name in node.input[1:] if _is_infinite(name, graph)]
    return len(infinite) == 1 and node.input[0] in graph.shapes


def _is_infinite(name: str, graph: Graph) -> bool:
    value = graph.constants.get(name)
    return value is not None and value.size == 1 and value.dtype.kind == "f" and bool(np.isinf(value).all())


def _add_logarithm(node: onnx.NodeProto, graph: Graph) -> list[onnx.NodeProto]:
    condition, chosen, other = node.input
    stem = node.name or node.output[0]
    nodes = []
    if _is_infinite(chosen, graph):
        chosen, other = other, chosen
        opposite = graph.new_name(f"{stem}_opposite")
        shape = graph.shapes[condition]
        nodes.append(graph.make_node("Not", [condition], opposite, stem=f"{opposite}_node", shape=shape))
        condition = opposite
    kind = graph.dtypes.get(chosen, onnx.TensorProto.FLOAT)
    mask, logarithm = graph.new_name(f"{stem}_mask"), graph.new_name(f"{stem}_logarithm")
    graph.dtypes[mask] = kind
    shape = graph.shapes[condition]
    nodes.append(graph.make_node("Cast", [condition], mask, stem=f"{mask}_node", shape=shape, to=kind))
    nodes.append(graph.make_node("Log", [mask], logarithm, stem=f"{logarithm}_node", shape=shape))
    joined = "Add" if float(graph.constants[other].reshape(())) < 0 else "Sub"
    shape = graph.shapes[node.output[0]]
    nodes.append(graph.make_node(joined, [chosen, logarithm], node.output[0], stem=stem, shape=shape))
    return nodes
