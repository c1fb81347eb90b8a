"""What an export is tried on: the same numbers for the source and for the graph, made by a fixed seed.

Tokens are random; the greedy ones are the source's own. The long cache is random too: what matters is that the last
position of the context, its masks and windows are computed alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

PROMPT_TOKENS = 24
GREEDY_TOKENS = 32
_PADDED = 7
_CACHE_BYTES = 128 * 2**20
"""Of the long cache, at most; that of a long context would take more memory than the model."""
_SEED = 11


@dataclass(frozen=True, kw_only=True, eq=False)
class Cases:
    """Inputs for a model of some shape.

    Attributes:
        prompt: int64 [1, tokens].
        batch: int64 [2, tokens], whose second row begins with padding.
        batch_mask: int64 [2, tokens].
        greedy: How many tokens are generated after the prompt.
        cached: Tokens in the long cache.
        layers: Of the model.
        cache_shape: Of keys and of values of the long cache.
        context_length: Of the model.
    """

    prompt: NDArray[np.int64]
    batch: NDArray[np.int64]
    batch_mask: NDArray[np.int64]
    greedy: int
    cached: int
    layers: int
    cache_shape: tuple[int, int, int, int]
    context_length: int

    def without_padding(self, logits: NDArray[np.float32]) -> NDArray[np.float32]:
        """Returns logits of the batch with zeros where it is padded: what stands there is nobody's answer."""
        return np.where(self.batch_mask[..., None] == 1, logits, np.float32(0))

    def random_cache(self, layer: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Returns keys and values of a layer of the long cache."""
        random = np.random.default_rng([_SEED, layer])
        key, value = (random.standard_normal(self.cache_shape, dtype=np.float32) for _ in range(2))
        return key, value


def make_cases(*, layers: int, kv_heads: int, head_dim: int, vocab_size: int, context_length: int) -> Cases:
    """Returns the cases for a model."""
    random = np.random.default_rng(_SEED)
    tokens = max(2, min(PROMPT_TOKENS, context_length // 2))
    batch = random.integers(0, vocab_size, (2, tokens))
    mask = np.ones((2, tokens), np.int64)
    mask[1, : min(_PADDED, tokens - 1)] = 0
    most = _CACHE_BYTES // (2 * 4 * layers * kv_heads * head_dim)
    cached = max(1, min(context_length - 1, most))
    return Cases(
        prompt=random.integers(0, vocab_size, (1, tokens)),
        batch=batch,
        batch_mask=mask,
        greedy=max(1, min(GREEDY_TOKENS, context_length - tokens)),
        cached=cached,
        layers=layers,
        cache_shape=(1, kv_heads, cached, head_dim),
        context_length=context_length,
    )


def positions_of(mask: NDArray[np.int64]) -> NDArray[np.int64]:
    """Returns the position of each token of a batch that is padded on the left."""
    return np.maximum(np.cumsum(mask, axis=1) - 1, 0)
