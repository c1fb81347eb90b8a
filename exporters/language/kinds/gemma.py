"""Gemma 1, 2 and 3 (texts alone): scaled embeddings, gains stored as what they are above 1, norms after each part."""

from __future__ import annotations

from modelwright.exporters.language.config import Config
from modelwright.exporters.language.decoder import Attention, Block, Decoder, FeedForward, Linear, Norm, Rope
from modelwright.exporters.language.kinds.shape import (
    Shape,
    find_activation,
    find_context,
    find_window,
    require_absent,
)
from modelwright.exporters.language.rope import find_rope

_LAYER_TYPES = ("full_attention", "sliding_attention")


def describe_gemma(config: Config) -> Decoder:
    """Describes a Gemma of the first generation: Llama with scaled embeddings."""
    shape = Shape.of(config)
    return _describe(
        config,
        shape,
        {"rope": _read_rope(config, shape)},
        [_plain_block(config, shape, index) for index in range(shape.layers)],
    )


def describe_gemma2(config: Config) -> Decoder:
    """Describes a Gemma 2: every other layer looks back over a window, scores and logits are softly limited."""
    shape = Shape.of(config)
    softcap = config.optional_amount("attn_logit_softcapping")
    blocks = [_normed_block(config, shape, index, "rope", softcap=softcap) for index in range(shape.layers)]
    return _describe(config, shape, {"rope": _read_rope(config, shape)}, blocks)


def describe_gemma3(config: Config) -> Decoder:
    """Describes a Gemma 3 of texts: windowed layers turn by other frequencies, query and key are normed."""
    shape = Shape.of(config)
    given = config.values.get("rope_parameters")
    if not isinstance(given, dict) or not all(isinstance(given.get(kind), dict) for kind in _LAYER_TYPES):
        raise config.refuse("rope_parameters", f"parameters for {' and '.join(_LAYER_TYPES)}")
    kinds = [_LAYER_TYPES[find_window(config, index) is not None] for index in range(shape.layers)]
    blocks = [_normed_block(config, shape, index, kind, head_norms=True) for index, kind in enumerate(kinds)]
    ropes = {kind: find_rope(config.loaded, shape.head_dim, given[kind], kind) for kind in sorted(set(kinds))}
    return _describe(config, shape, ropes, blocks)


def _describe(config: Config, shape: Shape, ropes: dict[str, Rope], blocks: list[Block]) -> Decoder:
    require_absent(config, "use_bidirectional_attention", "attention to later tokens")
    context, notes = find_context(config)
    head = Linear(name="lm_head", inputs=shape.hidden_size, outputs=shape.vocab_size)
    return Decoder(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        context_length=context,
        prefix="model.",
        table="model.embed_tokens.weight",
        embedding_scale=shape.hidden_size**0.5,
        ropes=ropes,
        blocks=blocks,
        final_norm=_norm(config, "model.norm", shape.hidden_size),
        head=None if config.flag("tie_word_embeddings") else head,
        softcap=config.optional_amount("final_logit_softcapping"),
        notes=notes,
    )


def _plain_block(config: Config, shape: Shape, index: int) -> Block:
    place = f"model.layers.{index}"
    return Block(
        attention_norm=_norm(config, f"{place}.input_layernorm", shape.hidden_size),
        attention=_attention(config, shape, index, "rope", scale=shape.head_dim**-0.5),
        feed_forward_norm=_norm(config, f"{place}.post_attention_layernorm", shape.hidden_size),
        feed_forward=_feed_forward(config, shape, index, "hidden_act"),
    )


def _normed_block(
    config: Config, shape: Shape, index: int, rope: str, *, softcap: float | None = None, head_norms: bool = False
) -> Block:
    place = f"model.layers.{index}"

    def norm(name: str) -> Norm:
        return _norm(config, f"{place}.{name}", shape.hidden_size)

    scale = config.amount("query_pre_attn_scalar") ** -0.5
    return Block(
        attention_norm=norm("input_layernorm"),
        attention=_attention(config, shape, index, rope, scale=scale, softcap=softcap, head_norms=head_norms),
        after_attention=norm("post_attention_layernorm"),
        feed_forward_norm=norm("pre_feedforward_layernorm"),
        feed_forward=_feed_forward(config, shape, index, "hidden_activation"),
        after_feed_forward=norm("post_feedforward_layernorm"),
    )


def _attention(
    config: Config,
    shape: Shape,
    index: int,
    rope: str,
    *,
    scale: float,
    softcap: float | None = None,
    head_norms: bool = False,
) -> Attention:
    place, bias = f"model.layers.{index}.self_attn", config.flag("attention_bias")
    width, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        return Linear(name=f"{place}.{name}", inputs=inputs, outputs=outputs, bias=bias)

    return Attention(
        projections=[
            linear("q_proj", shape.hidden_size, width),
            linear("k_proj", shape.hidden_size, keys),
            linear("v_proj", shape.hidden_size, keys),
        ],
        output=linear("o_proj", width, shape.hidden_size),
        heads=shape.heads,
        kv_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        scale=scale,
        softcap=softcap,
        window=find_window(config, index),
        rope=rope,
        query_norm=_norm(config, f"{place}.q_norm", shape.head_dim) if head_norms else None,
        key_norm=_norm(config, f"{place}.k_norm", shape.head_dim) if head_norms else None,
    )


def _feed_forward(config: Config, shape: Shape, index: int, activation: str) -> FeedForward:
    place, hidden, inner = f"model.layers.{index}.mlp", shape.hidden_size, shape.intermediate_size
    return FeedForward(
        gate=Linear(name=f"{place}.gate_proj", inputs=hidden, outputs=inner),
        up=Linear(name=f"{place}.up_proj", inputs=hidden, outputs=inner),
        down=Linear(name=f"{place}.down_proj", inputs=inner, outputs=hidden),
        activation=find_activation(config, activation),
    )


def _read_rope(config: Config, shape: Shape) -> Rope:
    return find_rope(config.loaded, shape.head_dim, config.values.get("rope_parameters") or {})


def _norm(config: Config, name: str, size: int) -> Norm:
    return Norm(name=name, size=size, epsilon=config.amount("rms_norm_eps"), from_one=True)
