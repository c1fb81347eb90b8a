"""Ranks layers by what their quantization harms, for each share of the work that float would cost.

Two measures together. One pass over a few samples says how much noise each layer's own rounding makes at the layer; but
noise may be averaged away behind it, or be all that an answer depends on. So groups of neighbours are quantized with
everything else in float, and what that does to the outputs is shared out among the layers of the group by their noise.
Quantized alone, and not spared alone: where two layers each ruin a model, sparing one of them shows nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

from modelwright.core.errors import ToolchainMissingError
from modelwright.targets.quantization.goal import Figures
from modelwright.targets.quantization.judge import Judge
from modelwright.targets.quantization.quantizer import CandidateT, ModelT, Quantizer, spare_others

_SAMPLES = 16
"""Samples that rank layers: the order is wanted, not the figures."""
_LEAST_GROUPS, _GROUPS_PER_DOUBLING = 16, 2
"""Groups of layers that are tried: so many, and more by the logarithm of the number of layers."""
_LEAST_SHARE = 1e-3
"""Work that every layer counts as at least: one that costs next to nothing need not gain anything."""
_LEAST_NOISE = 1e-12


def describe_ranking() -> dict[str, Any]:
    """Returns what decides the order of layers: with other values a search may choose otherwise."""
    return {
        "samples": _SAMPLES,
        "groups": [_LEAST_GROUPS, _GROUPS_PER_DOUBLING],
        "least_share": _LEAST_SHARE,
    }


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A layer that can go back to float.

    Attributes:
        name: Of the layer.
        share: Of the model's work.
        gain: How much of the error at the outputs comes with its quantization; an estimate.
        noise: Noise to signal of its own rounding at the layer; None where the runtime cannot tell.
    """

    name: str
    share: float
    gain: float
    noise: float | None = None


def rank_layers(
    quantizer: Quantizer[CandidateT, ModelT],
    judge: Judge,
    candidate: CandidateT,
    model: ModelT,
    progress: Callable[[str], None],
) -> list[Layer]:
    """Returns the layers, the one first that gains most for its share of the work.

    Evaluates as many groups of layers as grow with the logarithm of their number.

    Args:
        quantizer: The runtime's side.
        judge: A few of whose samples compare with FP32.
        candidate: The way to quantize.
        model: The candidate without layers in float.
        progress: Takes a line about what is going on.
    """
    shares = quantizer.costs(model)
    estimated = quantizer.estimate_noise(candidate, model)
    # What FP32 makes may hold NaN: then nothing is known of the noise.
    noise = {name: value for name, value in estimated.items() if math.isfinite(value)}
    parts = _split(list(shares), max(_LEAST_GROUPS, _GROUPS_PER_DOUBLING * len(shares).bit_length()))
    progress(f"sensitivity analysis of {len(shares)} layers in {len(parts)} groups")
    quantizer.foresee(candidate, [spare_others(shares, part) for part in ((), *parts)])
    build = partial(quantizer.build_for_ranking, candidate, model)
    floor = _measure(quantizer, judge, partial(build, ()))
    layers: list[Layer] = []
    for part in parts:
        harm = _measure(quantizer, judge, partial(build, part)).harm_beyond(floor)
        for name, weight in _share_out(part, noise).items():
            layers.append(Layer(name=name, share=shares[name], gain=max(harm, 0.0) * weight, noise=noise.get(name)))
    return sorted(layers, key=_rate, reverse=True)


def _rate(layer: Layer) -> tuple[float, float]:
    """Returns what a layer gains for its time; of those that gain nothing, what they might."""
    share = layer.share + _LEAST_SHARE
    return layer.gain / share, (layer.noise or 0.0) / share


def sort_by_gain(layers: Sequence[Layer]) -> list[Layer]:
    """Returns the layers, the one first that gains most, whatever it costs; of those that gain alike, the noisier."""
    return sorted(layers, key=lambda layer: (layer.gain, layer.noise or 0.0), reverse=True)


def list_worst(layers: Sequence[Layer], share: float) -> list[tuple[str, ...]]:
    """Returns the worst layer, the two worst, and so on, as long as they are within a share of the work."""
    shares = {layer.name: layer.share for layer in layers}
    return list_within(layers, share, lambda names: sum(shares[name] for name in names))


def list_within(
    layers: Sequence[Layer], room: float, price: Callable[[tuple[str, ...]], float]
) -> list[tuple[str, ...]]:
    """Returns the first layer, the two first, and so on: those that do not fit into what there is room for, left out.

    Args:
        layers: In the order of taking them.
        room: For all.
        price: What several layers take of it together.
    """
    choices: list[tuple[str, ...]] = []
    names: tuple[str, ...] = ()
    for layer in layers:
        if price((*names, layer.name)) <= room:
            names = (*names, layer.name)
            choices.append(names)
    return choices


def _share_out(part: Sequence[str], noise: Mapping[str, float]) -> dict[str, float]:
    """Returns layer -> its share of what its group does: by its noise, which counts as usual where it is not known."""
    known = [noise[name] for name in part if name in noise]
    usual = sum(known) / len(known) if known else 1.0
    weights = {name: max(noise.get(name, usual), _LEAST_NOISE) for name in part}
    total = sum(weights.values())
    return {name: weight / total for name, weight in weights.items()}


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
