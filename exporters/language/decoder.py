"""What a decoder of a causal language model consists of: data, which the graph is written from.

A kind of architecture (`kinds/`) maps its config and its weights' names to this; `graph.py` alone knows ONNX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Activation = Literal["silu", "gelu", "gelu_tanh", "relu"]


@dataclass(frozen=True, kw_only=True)
class Linear:
    """A matrix, and a bias where it has one.

    Attributes:
        name: Of its weight, without `.weight`.
        inputs: Channels in.
        outputs: Channels out.
        bias: Whether `NAME.bias` is added.
        stored: How the source stores the matrix: torch's `nn.Linear` as [out, in], GPT-2 as [in, out].
    """

    name: str
    inputs: int
    outputs: int
    bias: bool = False
    stored: Literal["out_in", "in_out"] = "out_in"


@dataclass(frozen=True, kw_only=True)
class Norm:
    """A normalization over the last axis.

    Attributes:
        name: Of its weight, without `.weight`.
        size: Of that axis.
        epsilon: Added to the mean square, or to the variance.
        kind: By the root mean square, or by mean and variance with a bias.
        from_one: Whether the weight is what the gain is above 1, as Gemma stores it.
    """

    name: str
    size: int
    epsilon: float
    kind: Literal["rms", "layer"] = "rms"
    from_one: bool = False


@dataclass(frozen=True, kw_only=True, eq=False)
class Rope:
    """A rotary embedding: the angle of a pair of channels is position times frequency.

    Attributes:
        frequencies: float32 [head_dim / 2], as the source computes them.
        scale: Of sine and cosine; not 1 with YaRN.
    """

    frequencies: NDArray[np.float32]
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Attention:
    """Causal attention of grouped heads.

    Attributes:
        projections: Query, key and value; or one that gives the three beside each other.
        output: Back to the channels between blocks.
        heads: Of the query.
        kv_heads: Of key and value.
        head_dim: Channels of a head.
        scale: Of the products of query and key.
        softcap: What these are softly limited to; None for no limit.
        window: Tokens that a token sees, itself included; None for all.
        rope: Which of the decoder's rotary embeddings; None for positions that are learnt.
        query_norm: Of each head of the query.
        key_norm: Of each head of the key.
    """

    projections: Sequence[Linear]
    output: Linear
    heads: int
    kv_heads: int
    head_dim: int
    scale: float
    softcap: float | None = None
    window: int | None = None
    rope: str | None = None
    query_norm: Norm | None = None
    key_norm: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """`down(activation(up(x)))`, or with a gate `down(activation(gate(x)) * up(x))`."""

    up: Linear
    down: Linear
    activation: Activation
    gate: Linear | None = None


@dataclass(frozen=True, kw_only=True)
class Block:
    """Attention and feed-forward part, each normed before it and added to what came in; Gemma norms after them too."""

    attention_norm: Norm
    attention: Attention
    feed_forward_norm: Norm
    feed_forward: FeedForward
    after_attention: Norm | None = None
    after_feed_forward: Norm | None = None


@dataclass(frozen=True, kw_only=True)
class Decoder:
    """All of a causal language model.

    Attributes:
        vocab_size: Rows of the embedding table, and logits.
        hidden_size: Channels between blocks.
        intermediate_size: Channels inside the feed-forward parts.
        context_length: Positions that it knows.
        prefix: What names of weights begin with, but for the head's; files of a model without a head lack it.
        table: Name of the embedding table, with `.weight`.
        positions: Name of the table of learnt positions, with `.weight`; None with rotary ones.
        embedding_scale: What embeddings are multiplied by.
        ropes: Name -> rotary embedding.
        blocks: In order.
        final_norm: Before the head.
        head: None where it reads the embedding table.
        softcap: What logits are softly limited to; None for no limit.
        unused: Endings of names of tensors in files that inference does not read.
        notes: Sentences for the user.
    """

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    context_length: int
    prefix: str
    table: str
    positions: str | None = None
    embedding_scale: float = 1.0
    ropes: Mapping[str, Rope] = field(default_factory=dict)
    blocks: Sequence[Block]
    final_norm: Norm
    head: Linear | None
    softcap: float | None = None
    unused: Sequence[str] = ()
    notes: Sequence[str] = ()
