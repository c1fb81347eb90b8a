"""GPT-2: learnt positions, norms with mean and bias, query, key and value in one matrix, stored as [in, out]."""

from __future__ import annotations

from modelwright.exporters.language.config import Config
from modelwright.exporters.language.decoder import Attention, Block, Decoder, FeedForward, Linear, Norm
from modelwright.exporters.language.kinds.shape import SHORTEST_CONTEXT, find_activation, require_absent

_MASKS = (".attn.bias", ".attn.masked_bias")
"""Which earlier versions of transformers stored beside the weights."""


def describe_gpt2(config: Config) -> Decoder:
    """Describes a GPT-2."""
    require_absent(config, "add_cross_attention", "attention over an encoder's output")
    hidden, vocabulary = config.count("n_embd"), config.count("vocab_size")
    inner = config.optional_count("n_inner") or 4 * hidden
    heads = config.count("n_head")
    if hidden % heads:
        raise config.refuse("n_head", f"a divisor of n_embd, which is {hidden}")
    head = Linear(name="lm_head", inputs=hidden, outputs=vocabulary)
    return Decoder(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=inner,
        context_length=config.count("n_positions", least=SHORTEST_CONTEXT),
        prefix="transformer.",
        table="transformer.wte.weight",
        positions="transformer.wpe.weight",
        blocks=[_describe_block(config, index, hidden, inner, heads) for index in range(config.count("n_layer"))],
        final_norm=_norm(config, "transformer.ln_f", hidden),
        head=None if config.flag("tie_word_embeddings") else head,
        unused=_MASKS,
    )


def _describe_block(config: Config, index: int, hidden: int, inner: int, heads: int) -> Block:
    place = f"transformer.h.{index}"
    scale = (hidden // heads) ** -0.5 if config.flag("scale_attn_weights") else 1.0
    if config.flag("scale_attn_by_inverse_layer_idx"):
        scale /= index + 1

    def linear(name: str, inputs: int, outputs: int) -> Linear:
        return Linear(name=f"{place}.{name}", inputs=inputs, outputs=outputs, bias=True, stored="in_out")

    return Block(
        attention_norm=_norm(config, f"{place}.ln_1", hidden),
        attention=Attention(
            projections=[linear("attn.c_attn", hidden, 3 * hidden)],
            output=linear("attn.c_proj", hidden, hidden),
            heads=heads,
            kv_heads=heads,
            head_dim=hidden // heads,
            scale=scale,
        ),
        feed_forward_norm=_norm(config, f"{place}.ln_2", hidden),
        feed_forward=FeedForward(
            up=linear("mlp.c_fc", hidden, inner),
            down=linear("mlp.c_proj", inner, hidden),
            activation=find_activation(config, "activation_function"),
        ),
    )


def _norm(config: Config, name: str, size: int) -> Norm:
    return Norm(name=name, size=size, epsilon=config.amount("layer_norm_epsilon"), kind="layer")
