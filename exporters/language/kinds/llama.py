"""Llama and its kin (Mistral, Qwen2, Qwen2.5, Qwen3, SmolLM): RMS norms, rotary positions, a gated feed-forward."""

from __future__ import annotations

from modelwright.exporters.language.config import Config
from modelwright.exporters.language.decoder import Activation, Attention, Block, Decoder, FeedForward, Linear, Norm
from modelwright.exporters.language.kinds.shape import Shape, find_activation, find_context, find_window
from modelwright.exporters.language.rope import find_rope

ROPE = "rope"


def describe_llama(config: Config) -> Decoder:
    """Describes a Llama, SmolLM or the like; biases are the config's."""
    return _describe(config, bias=config.flag("attention_bias"), output_bias=config.flag("attention_bias"))


def describe_mistral(config: Config) -> Decoder:
    """Describes a Mistral: Llama whose layers all look back over a window, where it has one."""
    return _describe(config)


def describe_qwen2(config: Config) -> Decoder:
    """Describes a Qwen2 or Qwen2.5: biases on query, key and value."""
    return _describe(config, bias=True)


def describe_qwen3(config: Config) -> Decoder:
    """Describes a Qwen3: query and key are normed head by head."""
    bias = config.flag("attention_bias")
    return _describe(config, bias=bias, output_bias=bias, head_norms=True)


def _describe(config: Config, *, bias: bool = False, output_bias: bool = False, head_norms: bool = False) -> Decoder:
    shape = Shape.of(config)
    epsilon = config.amount("rms_norm_eps")
    context, notes = find_context(config)
    activation = find_activation(config, "hidden_act")
    blocks = [
        _describe_block(
            config, shape, index, epsilon, activation, bias=bias, output_bias=output_bias, head_norms=head_norms
        )
        for index in range(shape.layers)
    ]
    tied = config.flag("tie_word_embeddings")
    return Decoder(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        context_length=context,
        prefix="model.",
        table="model.embed_tokens.weight",
        ropes={ROPE: find_rope(config.loaded, shape.head_dim, config.values.get("rope_parameters") or {})},
        blocks=blocks,
        final_norm=Norm(name="model.norm", size=shape.hidden_size, epsilon=epsilon),
        head=None if tied else Linear(name="lm_head", inputs=shape.hidden_size, outputs=shape.vocab_size),
        notes=notes,
    )


def _describe_block(
    config: Config,
    shape: Shape,
    index: int,
    epsilon: float,
    activation: Activation,
    *,
    bias: bool,
    output_bias: bool,
    head_norms: bool,
) -> Block:
    place = f"model.layers.{index}"
    width, keys = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    mlp_bias = config.flag("mlp_bias")

    def linear(name: str, inputs: int, outputs: int, *, bias: bool) -> Linear:
        return Linear(name=f"{place}.{name}", inputs=inputs, outputs=outputs, bias=bias)

    def head_norm(name: str) -> Norm | None:
        return Norm(name=f"{place}.self_attn.{name}", size=shape.head_dim, epsilon=epsilon) if head_norms else None

    hidden, inner = shape.hidden_size, shape.intermediate_size
    return Block(
        attention_norm=Norm(name=f"{place}.input_layernorm", size=hidden, epsilon=epsilon),
        attention=Attention(
            projections=[
                linear("self_attn.q_proj", hidden, width, bias=bias),
                linear("self_attn.k_proj", hidden, keys, bias=bias),
                linear("self_attn.v_proj", hidden, keys, bias=bias),
            ],
            output=linear("self_attn.o_proj", width, hidden, bias=output_bias),
            heads=shape.heads,
            kv_heads=shape.kv_heads,
            head_dim=shape.head_dim,
            scale=shape.head_dim**-0.5,
            window=find_window(config, index),
            rope=ROPE,
            query_norm=head_norm("q_norm"),
            key_norm=head_norm("k_norm"),
        ),
        feed_forward_norm=Norm(name=f"{place}.post_attention_layernorm", size=hidden, epsilon=epsilon),
        feed_forward=FeedForward(
            gate=linear("mlp.gate_proj", hidden, inner, bias=mlp_bias),
            up=linear("mlp.up_proj", hidden, inner, bias=mlp_bias),
            down=linear("mlp.down_proj", inner, hidden, bias=mlp_bias),
            activation=activation,
        ),
    )
