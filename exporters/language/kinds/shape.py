"""What configs of several kinds say in the same words: sizes, the activation, windows, and how long a text may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from modelwright.core.errors import BadInputError
from modelwright.exporters.language.config import Config
from modelwright.exporters.language.decoder import Activation

SHORTEST_CONTEXT = 4
"""Positions of a prompt, what follows it and a window, without which there is nothing to compare."""
_SHORTEST_WINDOW = 2
"""With a window of 1, transformers' cache keeps all keys (`keys[-window + 1 :]`): steps see what a prefill does not."""
LONGEST_CONTEXT = 131_072
"""Positions that rotary tables are made for: more would take more memory than small models' weights."""
_ACTIVATIONS: dict[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}


@dataclass(frozen=True, kw_only=True)
class Shape:
    """Sizes of a decoder with grouped heads."""

    layers: int
    hidden_size: int
    intermediate_size: int
    vocab_size: int
    heads: int
    kv_heads: int
    head_dim: int

    @classmethod
    def of(cls, config: Config) -> Self:
        """Reads the sizes of a config.

        Raises:
            BadInputError: They do not fit together.
        """
        heads, kv_heads = config.count("num_attention_heads"), config.count("num_key_value_heads")
        head_dim = config.optional_count("head_dim") or config.count("hidden_size") // heads
        if heads % kv_heads:
            raise config.refuse("num_key_value_heads", f"a divisor of num_attention_heads, which is {heads}")
        if head_dim < 2 or head_dim % 2:
            raise config.refuse("head_dim", "an even number of at least 2")
        return cls(
            layers=config.count("num_hidden_layers"),
            hidden_size=config.count("hidden_size"),
            intermediate_size=config.count("intermediate_size"),
            vocab_size=config.count("vocab_size"),
            heads=heads,
            kv_heads=kv_heads,
            head_dim=head_dim,
        )


def find_activation(config: Config, key: str) -> Activation:
    """Returns the activation of the feed-forward parts.

    Raises:
        BadInputError: One that is not known.
    """
    value = config.values.get(key)
    if not isinstance(value, str) or value not in _ACTIVATIONS:
        raise config.refuse(key, f"one of {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[value]


def find_window(config: Config, layer: int) -> int | None:
    """Returns how many tokens a layer looks back over, itself included; None where it sees all."""
    kinds = config.values.get("layer_types")
    if kinds is None:
        return _read_window(config)
    if (
        not isinstance(kinds, list)
        or len(kinds) <= layer
        or kinds[layer] not in ("full_attention", "sliding_attention")
    ):
        raise config.refuse("layer_types", "full_attention or sliding_attention for each layer")
    return _read_window(config) if kinds[layer] == "sliding_attention" else None


def _read_window(config: Config) -> int | None:
    if config.values.get("sliding_window") is None:
        return None
    return config.count("sliding_window", least=_SHORTEST_WINDOW)


def find_context(config: Config) -> tuple[int, tuple[str, ...]]:
    """Returns how many positions tables are made for, and a note where these are fewer than the model knows."""
    positions = config.count("max_position_embeddings", least=SHORTEST_CONTEXT)
    if positions <= LONGEST_CONTEXT:
        return positions, ()
    return LONGEST_CONTEXT, (f"texts of up to {LONGEST_CONTEXT:,} tokens, of the {positions:,} that the model knows",)


def require_absent(config: Config, key: str, what: str) -> None:
    """Refuses what is not exported.

    Raises:
        BadInputError: The config asks for it.
    """
    if config.values.get(key):
        raise BadInputError(
            f"{config.path}: {key} asks for {what}, which is not exported",
            hint="take a model without it, or give a factory in Python as the source: FILE.py:FUNCTION",
        )
