"""What of a model cannot be quantized, and why: of all its layers a refusal, of some a note."""

from __future__ import annotations

from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.facts import ONNX_DOMAINS, is_quantized_operator
from modelwright.core.onnx.walk import find_subgraphs
from modelwright.targets.graphs.index import GraphIndex, index_graph
from modelwright.targets.graphs.rewrite import MICROSOFT_DOMAIN

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "GRU", "LSTM", "MatMul", "RNN"})
_FLOAT16, _BFLOAT16 = 10, 16
"""`onnx.TensorProto`."""
_SHIPPED = "ort-fp32 ships it as it is"


def refuse_unquantizable(model: Any, target: str, layers: str, other: str | None) -> BuildFailedError:
    """Returns the refusal of a model without any layer that a target can quantize.

    Args:
        model: As prepared: constants folded.
        target: Its name.
        layers: What the target quantizes, in words.
        other: The target of the other kind of INT8, where that one finds layers in this model.
    """
    reason, cure = _find_reason(model, index_graph(model), layers)
    return BuildFailedError(
        f"{target} has nothing to quantize: {reason}",
        hint=f"{other} quantizes layers of this model" if other is not None and cure is None else cure or _SHIPPED,
    )


def explain_inner(model: Any) -> list[str]:
    """Returns a sentence about layers that stay in float because they are inside others; none where there are none."""
    holders = _find_holders(model)
    inside = f"layers inside {', '.join(holders)} stay in float: branches and bodies are not quantized"
    return [inside] if holders else []


def _find_reason(model: Any, index: GraphIndex, layers: str) -> tuple[str, str | None]:
    """Returns why, and what to do where that is not taking another target."""
    nodes = list(model.graph.node)
    quantized = sorted({node.op_type for node in nodes if is_quantized_operator(node.op_type)})
    if quantized:
        return f"the model is quantized already ({', '.join(quantized[:3])})", (
            f"give the float model that it was made from; {_SHIPPED}"
        )
    weighted = [node for node in nodes if node.op_type in _WEIGHTED and node.domain in ONNX_DOMAINS]
    types = {tensor.data_type for tensor in index.constants.values() if len(tensor.dims) > 1}
    if types & {_FLOAT16, _BFLOAT16}:
        name = "float16" if _FLOAT16 in types else "bfloat16"
        return f"its weights are {name}", "export it in float32"
    computed = [node for node in weighted if len(node.input) > 1 and node.input[1] not in index.constants]
    if computed and len(computed) == len(weighted):
        node = computed[0]
        what = "inputs of the model" if node.input[1] in _list_inputs(model) else "computed as it runs"
        return f"the weights of its layers are {what}, not constants: {node.op_type} {node.name}", None
    if not weighted:
        inner = _find_holders(model)
        if inner:
            return f"its layers are inside {', '.join(inner)}, whose branches and bodies stay in float", None
        fused = sorted({node.op_type for node in nodes if node.domain == MICROSOFT_DOMAIN})
        if fused:
            return f"its layers are operators of ONNX Runtime's own: {', '.join(fused[:3])}", (
                f"export it before it is optimized for ONNX Runtime; {_SHIPPED}"
            )
        return f"the model has no {layers}", None
    found = ", ".join(sorted({node.op_type for node in weighted}))
    return f"ONNX Runtime has an integer kernel for {layers} with constant float32 weights; the model has {found}", None


def _find_holders(model: Any) -> list[str]:
    """Returns the kinds of nodes of the main graph in whose branches and bodies there are layers."""
    return sorted({node.op_type for node in model.graph.node for inner in find_subgraphs(node) if _has_weighted(inner)})


def _list_inputs(model: Any) -> set[str]:
    return {value.name for value in model.graph.input}


def _has_weighted(graph: Any) -> bool:
    return any(
        node.op_type in _WEIGHTED or any(_has_weighted(inner) for inner in find_subgraphs(node)) for node in graph.node
    )
