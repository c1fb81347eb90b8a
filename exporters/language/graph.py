"""Writes the portable ONNX graph of a decoder: opset 23, its cache as inputs and outputs, weights outside.

    inputs   input_ids [batch, sequence], attention_mask [batch, total], position_ids [batch, sequence], num_logits [1],
             past_key_values.I.key and .value [batch, kv_heads, past, head_dim]
    outputs  logits [batch, min(num_logits, sequence), vocab],
             present.I.key and .value [batch, kv_heads, total, head_dim]

`total` is past and sequence together. Padding lies on the left; a position of it sees itself alone, so that nothing
divides by zero. Masks are booleans: what may be seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from modelwright.exporters.language.decoder import Attention, Block, Decoder, FeedForward, Linear, Norm
from modelwright.exporters.language.graph_writer import GraphWriter
from modelwright.exporters.language.rope import cosine_table, sine_table

if TYPE_CHECKING:
    import onnx

    from modelwright.exporters.language.graph_writer import Weight

OPSET = 23


def write_graph(decoder: Decoder, name: str) -> tuple[onnx.ModelProto, Sequence[Weight]]:
    """Returns the model, whose initializers are not placed yet, and the weights in the order of their use.

    Args:
        decoder: What to write.
        name: Of the graph.
    """
    writer = GraphWriter()
    first = decoder.blocks[0].attention
    for place in ("input_ids", "position_ids"):
        writer.add_input(place, "int64", ["batch", "sequence"])
    writer.add_input("attention_mask", "int64", ["batch", "total"])
    writer.add_input("num_logits", "int64", [1])
    for index in range(len(decoder.blocks)):
        for part in ("key", "value"):
            writer.add_input(
                f"past_key_values.{index}.{part}", "float32", ["batch", first.kv_heads, "past", first.head_dim]
            )
    hidden = _embed(writer, decoder)
    masks = _write_masks(writer, sorted({block.attention.window for block in decoder.blocks}, key=lambda w: w or 0))
    for rope_name, rope in decoder.ropes.items():
        shape = (decoder.context_length, rope.frequencies.size)
        writer.add_constant(f"{rope_name}.cos", shape, partial(cosine_table, rope, decoder.context_length))
        writer.add_constant(f"{rope_name}.sin", shape, partial(sine_table, rope, decoder.context_length))
    for index, block in enumerate(decoder.blocks):
        hidden = _write_block(writer, block, index, hidden, masks[block.attention.window])
    _write_head(writer, decoder, hidden)
    writer.add_output("logits", "float32", ["batch", "logits", decoder.vocab_size])
    for index in range(len(decoder.blocks)):
        for part in ("key", "value"):
            writer.add_output(f"present.{index}.{part}", "float32", ["batch", first.kv_heads, "total", first.head_dim])
    return writer.finish(name, OPSET), writer.weights


def _embed(writer: GraphWriter, decoder: Decoder) -> str:
    table = writer.add_weight(decoder.table, (decoder.vocab_size, decoder.hidden_size))
    hidden = writer.add("Gather", [table, "input_ids"], decoder.table.removesuffix(".weight"))
    if decoder.embedding_scale != 1.0:
        scale = writer.number(decoder.embedding_scale)
        hidden = writer.add("Mul", [hidden, scale], "embedding_scale")
    if decoder.positions is not None:
        positions = writer.add_weight(decoder.positions, (decoder.context_length, decoder.hidden_size))
        learnt = writer.add("Gather", [positions, "position_ids"], decoder.positions.removesuffix(".weight"))
        hidden = writer.add("Add", [hidden, learnt], "embedding_positions")
    return hidden


def _write_masks(writer: GraphWriter, windows: Sequence[int | None]) -> dict[int | None, str]:
    """Writes what each position may see, [batch, 1, sequence, total], for each width of a window."""
    sequence = writer.add("Gather", [writer.add("Shape", ["input_ids"], "mask.shape"), writer.integer(1)], "mask.rows")
    total = writer.add(
        "Gather", [writer.add("Shape", ["attention_mask"], "mask.total_shape"), writer.integer(1)], "mask.columns"
    )
    zero, one = writer.integer(0), writer.integer(1)
    past = writer.add("Sub", [total, sequence], "mask.past")
    counted = writer.add("Add", [writer.add("Range", [zero, sequence, one], "mask.steps"), past], "mask.places")
    row = writer.add("Unsqueeze", [counted, writer.integers(1)], "mask.row")
    column = writer.add(
        "Unsqueeze", [writer.add("Range", [zero, total, one], "mask.seen"), writer.integers(0)], "mask.column"
    )
    causal = writer.add("LessOrEqual", [column, row], "mask.causal")
    itself = writer.add("Equal", [column, row], "mask.itself")
    real = writer.add("Cast", ["attention_mask"], "mask.real", to="bool")
    real = writer.add("Unsqueeze", [real, writer.integers(1, 2)], "mask.real_keys")
    masks = {}
    for window in windows:
        allowed, suffix = causal, ""
        if window is not None:
            suffix = f".window_{window}"
            distance = writer.add("Sub", [row, column], f"mask.distance{suffix}")
            near = writer.add("Less", [distance, writer.integer(window)], f"mask.near{suffix}")
            allowed = writer.add("And", [causal, near], f"mask.allowed{suffix}")
        seen = writer.add("And", [allowed, real], f"mask.visible{suffix}")
        masks[window] = writer.add("Or", [seen, itself], f"mask{suffix}")
    return masks


def _write_block(writer: GraphWriter, block: Block, index: int, hidden: str, mask: str) -> str:
    normed = _norm(writer, block.attention_norm, hidden)
    attended = _attend(writer, block.attention, index, normed, mask)
    if block.after_attention is not None:
        attended = _norm(writer, block.after_attention, attended)
    hidden = writer.add("Add", [hidden, attended], f"layers.{index}.after_attention")
    fed = _feed(writer, block.feed_forward, index, _norm(writer, block.feed_forward_norm, hidden))
    if block.after_feed_forward is not None:
        fed = _norm(writer, block.after_feed_forward, fed)
    return writer.add("Add", [hidden, fed], f"layers.{index}.after_feed_forward")


def _attend(writer: GraphWriter, attention: Attention, index: int, hidden: str, mask: str) -> str:
    place = f"layers.{index}.attention"
    if len(attention.projections) == 1:
        joined = _linear(writer, attention.projections[0], hidden)
        widths = [heads * attention.head_dim for heads in (attention.heads, attention.kv_heads, attention.kv_heads)]
        query, key, value = writer.add_many(
            "Split",
            [joined, writer.integers(*widths)],
            [f"{place}.{part}" for part in ("query", "key", "value")],
            axis=-1,
        )
    else:
        query, key, value = (_linear(writer, part, hidden) for part in attention.projections)
    query = _norm_heads(writer, attention.query_norm, query, attention.heads, attention.head_dim)
    key = _norm_heads(writer, attention.key_norm, key, attention.kv_heads, attention.head_dim)
    if attention.rope is not None:
        tables = [f"{attention.rope}.cos", f"{attention.rope}.sin", "position_ids"]
        query = writer.add("RotaryEmbedding", [query, *tables], f"{place}.query_rope", num_heads=attention.heads)
        key = writer.add("RotaryEmbedding", [key, *tables], f"{place}.key_rope", num_heads=attention.kv_heads)
    past = [f"past_key_values.{index}.key", f"past_key_values.{index}.value"]
    present = [f"present.{index}.key", f"present.{index}.value"]
    attended = writer.add_many(
        "Attention",
        [query, key, value, mask, *past],
        [f"{place}.output", *present],
        name=place,
        q_num_heads=attention.heads,
        kv_num_heads=attention.kv_heads,
        scale=attention.scale,
        **({} if attention.softcap is None else {"softcap": attention.softcap}),
    )[0]
    return _linear(writer, attention.output, attended)


def _norm_heads(writer: GraphWriter, norm: Norm | None, value: str, heads: int, head_dim: int) -> str:
    """Norms each head of [batch, sequence, heads * head_dim] by itself."""
    if norm is None:
        return value
    apart = writer.add("Reshape", [value, writer.integers(0, 0, heads, head_dim)], f"{norm.name}.heads")
    return writer.add(
        "Reshape", [_norm(writer, norm, apart), writer.integers(0, 0, heads * head_dim)], f"{norm.name}.joined"
    )


def _feed(writer: GraphWriter, feed: FeedForward, index: int, hidden: str) -> str:
    place = f"layers.{index}.feed_forward"
    up = _linear(writer, feed.up, hidden)
    if feed.gate is None:
        return _linear(writer, feed.down, _activate(writer, feed, up, place))
    gate = _activate(writer, feed, _linear(writer, feed.gate, hidden), place)
    return _linear(writer, feed.down, writer.add("Mul", [gate, up], f"{place}.gated"))


def _activate(writer: GraphWriter, feed: FeedForward, value: str, place: str) -> str:
    match feed.activation:
        case "silu":
            return writer.add("Mul", [value, writer.add("Sigmoid", [value], f"{place}.sigmoid")], f"{place}.activation")
        case "gelu":
            return writer.add("Gelu", [value], f"{place}.activation")
        case "gelu_tanh":
            return writer.add("Gelu", [value], f"{place}.activation", approximate="tanh")
        case "relu":
            return writer.add("Relu", [value], f"{place}.activation")


def _norm(writer: GraphWriter, norm: Norm, value: str) -> str:
    gain = writer.add_weight(f"{norm.name}.weight", (norm.size,), plus=1.0 if norm.from_one else 0.0)
    if norm.kind == "rms":
        return writer.add("RMSNormalization", [value, gain], norm.name, axis=-1, epsilon=norm.epsilon)
    bias = writer.add_weight(f"{norm.name}.bias", (norm.size,))
    return writer.add("LayerNormalization", [value, gain, bias], norm.name, axis=-1, epsilon=norm.epsilon)


def _linear(writer: GraphWriter, linear: Linear, value: str) -> str:
    matrix = writer.add_weight(
        f"{linear.name}.weight", (linear.inputs, linear.outputs), transposed=linear.stored == "out_in"
    )
    product = writer.add("MatMul", [value, matrix], linear.name)
    if not linear.bias:
        return product
    bias = writer.add_weight(f"{linear.name}.bias", (linear.outputs,))
    return writer.add("Add", [product, bias], f"{linear.name}.add_bias")


def _write_head(writer: GraphWriter, decoder: Decoder, hidden: str) -> None:
    start = writer.add("Neg", ["num_logits"], "head.start")
    last = writer.integers(np.iinfo(np.int64).max)
    hidden = writer.add("Slice", [hidden, start, last, writer.integers(1)], "head.positions")
    hidden = _norm(writer, decoder.final_norm, hidden)
    if decoder.head is not None:
        logits = _linear(writer, decoder.head, hidden)
    else:
        turned = writer.add("Transpose", [decoder.table], "lm_head.table", perm=[1, 0])
        logits = writer.add("MatMul", [hidden, turned], "lm_head")
    if decoder.softcap is not None:
        limit = writer.number(decoder.softcap)
        limited = writer.add("Tanh", [writer.add("Div", [logits, limit], "head.scaled")], "head.limited")
        logits = writer.add("Mul", [limited, limit], "head.capped")
    writer.rename(logits, "logits")
