"""Chooses which matrices have few bits and which more, by what that does to the perplexity of tuning texts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import LanguageBuildRequest, Tokens
from modelwright.targets.language.grids import BlockFormat, Grids, SparedGrids, choose_spared, group_layers
from modelwright.targets.language.own_texts import ROWS
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.language.sensitivity import measure_harm

BLOCKS = (64, 32)
"""Values that share a scale. With 64, a token of SmolLM2-135M takes an eighth less time than with 32, and matrices of 8
bits a twentieth less: as many more matrices in 8 bits as that pays for keep more of perplexity than shorter blocks."""
DEFAULT_INCREASE = 0.08
"""Of perplexity, where the user set no limit."""
_SHARES = (0.0, 0.0625, 0.125, 0.1875, 0.25, 0.3125, 0.375, 0.5, 0.75)
"""Of the weights, that have more bits."""
_FIRST = _SHARES.index(0.25)
"""What a small model needs; a large one needs less."""
Measure = Callable[[Grids], float]
"""Builds a candidate and returns by what share it makes perplexity on the tuning texts grow."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What was chosen.

    Attributes:
        grids: The matrices.
        search: For the manifest: the limit, how many texts it was chosen on, how many of them the float model wrote
            itself, and by what share perplexity grew with each share of the weights in more bits.
        notes: For the user.
    """

    grids: Grids
    search: Mapping[str, Any]
    notes: tuple[str, ...]


def choose_few(model: PortableModel) -> BlockFormat:
    """Returns how matrices are stored in 4 bits: runtimes share it, and whoever rounds second finds the integers.

    Args:
        model: Whose matrices divide into the longest blocks that are taken, or into shorter ones.
    """
    rows = [layer.rows for layer in model.linear_layers.values()]
    size = next((size for size in BLOCKS if not any(each % size for each in rows)), BLOCKS[-1])
    return BlockFormat(bits=4, size=size, symmetric=False)


def choose_mixture(
    request: LanguageBuildRequest, few: CompensatedGrids, more: Grids, texts: Tokens, measure: Measure
) -> Mixture:
    """Finds the fewest matrices of more bits with which perplexity grows by no more than the limit.

    Args:
        request: With the limit.
        few: The matrices in few bits.
        more: All of the model's in more.
        texts: That it is chosen on, those of `find_tuning_texts`.
        measure: Tries a candidate on them.
    """
    groups = group_layers(few.model, few.formats)
    limit = DEFAULT_INCREASE if request.max_perplexity_increase is None else request.max_perplexity_increase

    @cache
    def measure_once() -> dict[str, float]:
        return measure_harm(few, groups, texts, request.threads, request.progress)

    def mix(share: float) -> Grids:
        spared = choose_spared(groups, measure_once(), share) if share else frozenset[str]()
        return SparedGrids(few, spared, more)

    tried: dict[float, float] = {}
    low, high = 0, len(_SHARES) - 1
    while low <= high:
        # None at all first: large models need none, and the harm, which takes longest, is then not measured.
        middle = (low + high) // 2 if len(tried) > 1 else (0, _FIRST)[len(tried)]
        share = _SHARES[middle]
        tried[share] = measure(mix(share))
        request.progress(f"{share:.0%} of the weights in 8 bits: perplexity {tried[share]:+.1%} on tuning texts")
        low, high = (low, middle - 1) if tried[share] <= limit else (middle + 1, high)
    good = [share for share, increase in tried.items() if increase <= limit]
    share = min(good) if good else max(tried)
    notes = () if good else (f"perplexity grows by {tried[share]:.1%} on tuning texts, more than {limit:.1%}",)
    told = [{"share_in_8_bits": share, "perplexity_increase": increase} for share, increase in sorted(tried.items())]
    return Mixture(
        grids=mix(share),
        search={"limit": limit, "tuning_texts": len(texts), "own_texts": ROWS, "tried": told},
        notes=notes,
    )
