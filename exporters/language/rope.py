"""Rotary embeddings: the frequencies as transformers computes them, and the tables of cosines and sines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np

from modelwright.core.errors import BadInputError
from modelwright.exporters.language.decoder import Rope

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STATIC = ("default", "linear", "llama3", "yarn")
"""Whose frequencies do not depend on how long the text is."""
_POSITIVE = (
    *("factor", "attention_factor", "beta_fast", "beta_slow", "low_freq_factor", "high_freq_factor"),
    "original_max_position_embeddings",
)
_LARGEST = 1e12
_HINT = "download the folder again, or correct config.json"


def find_rope(config: Any, head_dim: int, parameters: Mapping[str, Any], layer_type: str | None = None) -> Rope:
    """Returns a rotary embedding of a transformers config.

    Args:
        config: As `AutoConfig` gives it.
        head_dim: Channels that are turned.
        parameters: Its `rope_parameters`, or those of the layers of a type.
        layer_type: That type.

    Raises:
        BadInputError: Of a type whose frequencies change with the text, or that is not known.
    """
    import torch
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    kind = parameters.get("rope_type", "default")
    if kind not in _STATIC:
        raise BadInputError(
            f"config.json: rope_parameters: rope_type {str(kind)[:40]!r} is not known; known are {', '.join(_STATIC)}",
            hint="remove rope_scaling from config.json to run it within its original context, or take another model",
        )
    base = parameters.get("rope_theta")
    if not _is_number(base) or not 1 < base < _LARGEST:
        raise BadInputError(
            f"config.json: rope_parameters: rope_theta: expected a number above 1, found {base!r:.60}", hint=_HINT
        )
    _require_positive(parameters)
    if kind == "default":
        steps = torch.arange(0, head_dim, 2, dtype=torch.int64).to(torch.float32)
        return Rope(frequencies=(1.0 / (base ** (steps / head_dim))).numpy())
    layer = {} if layer_type is None else {"layer_type": layer_type}
    try:
        found, scale = ROPE_INIT_FUNCTIONS[kind](config, torch.device("cpu"), **layer)
        frequencies, scale = found.to(torch.float32).numpy(), float(scale)
    except Exception as error:  # transformers raises whatever a wrong value leads to
        raise BadInputError(
            f"config.json: rope_parameters: transformers computes no frequencies of rope_type {kind!r}",
            hint=_HINT,
            detail=str(error),
        ) from error
    if frequencies.shape != (head_dim // 2,) or not np.isfinite([*frequencies, scale]).all():
        raise BadInputError(
            f"config.json: rope_parameters: expected {head_dim // 2} frequencies that are finite, and "
            f"{frequencies.size} come of rope_type {kind!r}, scaled by {scale:g}",
            hint=_HINT,
        )
    return Rope(frequencies=frequencies, scale=scale)


def _require_positive(parameters: Mapping[str, Any]) -> None:
    """Refuses numbers by which transformers divides, or takes the logarithm of, and computes nonsense silently."""
    for key in _POSITIVE:
        value = parameters.get(key)
        if value is not None and (not _is_number(value) or not 0 < value < _LARGEST):
            raise BadInputError(
                f"config.json: rope_parameters: {key}: expected a number greater than 0, found {value!r:.60}",
                hint=_HINT,
            )


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def cosine_table(rope: Rope, positions: int) -> NDArray[np.float32]:
    """Returns the cosines, float32 [positions, head_dim / 2]."""
    return np.cos(_angles(rope, positions)) * np.float32(rope.scale)


def sine_table(rope: Rope, positions: int) -> NDArray[np.float32]:
    """Returns the sines, float32 [positions, head_dim / 2]."""
    return np.sin(_angles(rope, positions)) * np.float32(rope.scale)


def _angles(rope: Rope, positions: int) -> NDArray[np.float32]:
    # The product is rounded to float32, as the source does it: far positions would turn by another angle otherwise.
    return np.arange(positions, dtype=np.float32)[:, None] * rope.frequencies[None, :]
