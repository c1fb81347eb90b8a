"""Ranks layers by what their quantization harms, for each share of the work that float would cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from modelwright.core.errors import ToolchainMissingError
from modelwright.targets.quantization.goal import Figures
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.quantizer import CandidateT, ModelT, Quantizer

_SAMPLES = 16
"""Samples that rank layers: the order is wanted, not the figures."""
_GROUPS_SMALL, _GROUPS_LARGE = 32, 12
"""Groups of neighbouring layers that are tried, for models below and above `_LARGE_BYTES`."""
_LARGE_BYTES = 20_000_000
_LEAST_SHARE = 1e-3
"""Work that every layer counts as at least: one that costs next to nothing need not gain anything."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """Layers that go back to float together.

    Attributes:
        layers: Their names.
        share: Of the model's work.
        gain: How much of the error goes with their quantization, in the unit of whoever estimated it. Negative where it
            grows: errors may cancel, or be so large that one layer more or less says nothing.
    """

    layers: tuple[str, ...]
    share: float
    gain: float


def rank_layers(
    quantizer: Quantizer[CandidateT, ModelT],
    judge: Judge,
    candidate: CandidateT,
    model: ModelT,
    progress: Callable[[str], None],
    has_time: Callable[[], bool],
) -> list[Group]:
    """Returns groups of layers whose quantization harms, the one first that gains most for its share of the work.

    Args:
        quantizer: The runtime's side.
        judge: A few of whose samples compare with FP32.
        candidate: The way to quantize.
        model: The candidate without layers in float.
        progress: Takes a line about what is going on.
        has_time: Whether to go on; what was not ranked until then stays quantized.
    """
    shares = dict(quantizer.costs(model))
    known = quantizer.estimate_gains()
    if known is not None:
        groups = [Group(layers=(name,), share=shares[name], gain=gain) for name, gain in known.items()]
    else:
        groups = []
        parts = _split(list(shares), _GROUPS_LARGE if judge.model_bytes > _LARGE_BYTES else _GROUPS_SMALL)
        progress(f"sensitivity analysis of {len(shares)} layers in {len(parts)} groups")
        before = _measure(quantizer, judge, partial(quantizer.build_for_ranking, candidate, model, ()))
        for layers in parts:
            if not has_time():
                break
            after = _measure(quantizer, judge, partial(quantizer.build_for_ranking, candidate, model, layers))
            gain = after.gain_over(before)
            groups.append(Group(layers=layers, share=sum(shares[name] for name in layers), gain=gain))
    return sorted(groups, key=lambda group: -group.gain / (group.share + _LEAST_SHARE))


def list_worst(groups: Sequence[Group], share: float) -> list[tuple[str, ...]]:
    """Returns the worst group's layers, those of the two worst, and so on, as long as they are within a share."""
    choices: list[tuple[str, ...]] = []
    layers: tuple[str, ...] = ()
    spent = 0.0
    for group in groups:
        if spent + group.share <= share:
            spent += group.share
            layers = (*layers, *group.layers)
            choices.append(layers)
    return choices


def _measure(quantizer: Quantizer[CandidateT, ModelT], judge: Judge, make: Callable[[], ModelT]) -> Figures:
    try:
        model = make()
        return judge.judge(lambda feeds: quantizer.run(model, feeds), _SAMPLES)
    except ToolchainMissingError:
        raise
    except Exception as error:  # what a vendor's toolchain raises of one group says nothing of the others
        return Figures.broken(str(error))


def _split(layers: Sequence[str], parts: int) -> list[tuple[str, ...]]:
    """Returns neighbours in at most so many parts of about the same number."""
    count = min(parts, len(layers))
    ends = [len(layers) * part // count for part in range(count + 1)] if count else []
    return [tuple(layers[start:end]) for start, end in pairwise(ends)]
