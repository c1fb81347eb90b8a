"""Scales of attention that keep the order of its scores, after Liu et al. 2021 (arXiv 2106.14156).

What attention does with a score is to set it against the others of its row, so that an order that rounding turns does
more harm than an error that leaves it. The grids of queries and keys are chosen to make most of (their equation 12)

    correlation(scores, rounded scores) - hinge,
    hinge = mean over pairs of max(0, m_ij - sign(a_i - a_j) * (r_i - r_j)) / s

with Pearson's correlation (11) and, for their ranking loss (13), `a` a row of FP32's attention map, `r` the same of
rounded scores, and `s` the standard deviation of `a`. The grids of the map and of the values are chosen by the
correlation of what they give, as those of their linear layers are (10).

What differs from the paper:

- The loss is taken of what the Softmax gives, not of the scores before it, where a pair that no one looks at counts
  as much as the largest; as a mean in units of `s`, with weight 1, where theirs is a sum with a weight of 0.1.
- The margin is m_ij = min(0.2 s, |a_i - a_j|), so that FP32's own map has no loss; theirs is 0.2 for every pair, which
  asks pairs to lie farther apart than they do.
- Only what attention multiplies is searched, from the grids of `--ranges` and between 0.3 and 1.5 of their scales.
  Theirs searches weights and inputs of all layers in turns, between 0.5 and 1.2 of the largest value's scale, and
  corrects biases by the mean error (16); here layers with weights keep their grids.
- Which grids are kept is not decided on what chose them: samples that are held aside say whether they bring the
  network's answers closer to FP32's, attention by attention. Where they do not, the grids of `--ranges` stay.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from modelwright.harness.mixing.attention import Attention, find_attention
from modelwright.harness.mixing.calibration import Rounding
from modelwright.harness.mixing.grids import Grid
from modelwright.harness.mixing.network import Layer
from modelwright.harness.mixing.running import map_samples, open_runner
from modelwright.harness.mixing.simulate import simulate
from modelwright.targets.contract import Array, Feeds
from modelwright.targets.graphs.run import extra_outputs

Floats = npt.NDArray[np.float32]
Grids = dict[tuple[str, str, int], Grid]
"""As `Rounding.grids` has them."""
Seen = Mapping[str, Floats]
"""Tensor -> its values on one sample."""

_MARGIN = 0.2
"""Of the standard deviation of a row, so that it means the same for rows of 16 scores and of 512."""
_SHARES = (tuple(np.linspace(0.3, 1.5, 13).tolist()), (0.92, 0.96, 1.0, 1.04, 1.08))
"""Shares of the scale that are tried: first of the one of `--ranges`, then of the best so far."""
_PAIRS, _ROWS = 512, 64
"""Pairs of a row, and rows of a map, that are looked at: always the same, so that chance tells no candidates apart."""
_CHOOSING_SAMPLES, _HELD_SAMPLES = 8, 64
RANKING_SAMPLES = _CHOOSING_SAMPLES + _HELD_SAMPLES
"""Of the calibration samples: so many choose, and so many are held aside to say what is kept."""
_BEYOND_CHANCE = 2.0
"""Standard errors of the mean gain over samples."""
_GAIN = 0.01
"""Share of the answers' error that has to go before a grid is another one than that of `--ranges`."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """What was chosen.

    Attributes:
        grids: Of attention's operands, where others than those of `--ranges` serve better.
        tried: Attentions times widths.
        kept: Of them, those whose grids are other ones now.
    """

    grids: Grids
    tried: int
    kept: int

    def describe(self) -> str:
        """Returns a sentence for the user."""
        if not self.tried:
            return "no attention was found whose scores could keep their order: the scales are as without --rank-aware"
        return (
            f"scales that keep the order of attention's scores served better in {self.kept} of {self.tried} cases, an "
            "attention at a width each, on calibration samples held aside; the others are as without --rank-aware"
        )


def rank_grids(
    rounding: Rounding, widths: Sequence[int], feeds: Sequence[Feeds], outputs: Sequence[str], scratch: Path
) -> Ranked:
    """Chooses the grids of attention's operands.

    Args:
        rounding: With the grids of `--ranges`.
        widths: Bits to choose for.
        feeds: Calibration samples; the first ones choose, the others are held aside.
        outputs: Of the network, by which its answers are compared.
        scratch: For the intermediate file of a large model.
    """
    attentions = find_attention(rounding.network)
    choosing = feeds[: min(_CHOOSING_SAMPLES, len(feeds) // 3)]
    if not attentions or not choosing:
        return Ranked(grids={}, tried=0, kept=0)
    judge = HeldJudge(rounding, feeds[len(choosing) :][:_HELD_SAMPLES], outputs, scratch)
    chosen: list[Grids] = []
    for attention in attentions:
        seen = _capture(rounding, attention, choosing, scratch)
        chosen += [_choose(rounding, attention, seen, widths)] if seen else []
    grids: Grids = {}
    kept = 0
    for bits in widths:
        least = judge.measure({}, bits)
        for own in chosen:
            wanted = {key: grid for key, grid in own.items() if grid.bits == bits}
            errors = judge.measure({**grids, **wanted}, bits) if wanted else least
            if is_closer(errors, least):
                grids, least, kept = {**grids, **wanted}, errors, kept + 1
    return Ranked(grids=grids, tried=len(chosen) * len(widths), kept=kept)


def is_closer(errors: npt.NDArray[np.float64], before: npt.NDArray[np.float64]) -> bool:
    """Whether answers came closer to FP32's, by enough to be worth it, and beyond what chance does on such samples.

    Args:
        errors: Squared, one a sample.
        before: The same before.
    """
    gains = before - errors
    enough = (1 - (1 - _GAIN) ** 2) * before.mean()
    spread = float(gains.std(ddof=1)) / len(gains) ** 0.5 if len(gains) > 1 else np.inf
    return bool(gains.mean() > max(enough, _BEYOND_CHANCE * spread))


def measure_hinge(exact: Floats, rounded: Floats) -> float:
    """Returns the mean loss of pairs of a row whose order, or distance up to the margin, is not kept.

    Args:
        exact: FP32's attention map, [..., rows, columns].
        rounded: The same of rounded scores.
    """
    step = max(1, -(-exact.shape[-2] // _ROWS))
    exact, rounded = exact[..., ::step, :], rounded[..., ::step, :]
    first, second = _list_pairs(exact.shape[-1])
    spread = exact.std(axis=-1, keepdims=True)
    wanted, found = (values[..., first] - values[..., second] for values in (exact, rounded))
    margin = np.minimum(_MARGIN * spread, np.abs(wanted))
    lost = np.maximum(margin - np.sign(wanted) * found, 0.0)
    return float(np.mean(lost / np.maximum(spread, np.finfo(np.float32).tiny), dtype=np.float64))


def correlate(exact: Floats, rounded: Floats) -> float:
    """Returns Pearson's correlation over all values; 0 where one does not vary."""
    left, right = (values.astype(np.float64).ravel() - values.mean(dtype=np.float64) for values in (exact, rounded))
    norm = float(np.sqrt(np.vdot(left, left) * np.vdot(right, right)))
    return float(np.vdot(left, right)) / norm if norm > 0.0 else 0.0


def _list_pairs(columns: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    """Returns the pairs of columns that are looked at: all of them, or as many as may be."""
    first, second = np.triu_indices(columns, 1)
    if len(first) > _PAIRS:
        taken = np.random.default_rng(0).choice(len(first), _PAIRS, replace=False)
        return first[taken], second[taken]
    return first, second


def _capture(rounding: Rounding, attention: Attention, feeds: Sequence[Feeds], scratch: Path) -> list[Seen]:
    """Returns what FP32 makes around an attention, a mapping a sample; nothing where its shapes are not usual ones."""
    layers = [attention.scores, *([] if attention.context is None else [attention.context])]
    names = [attention.scores.output, attention.scaled, attention.map]
    names += [name for layer in layers for name in (*layer.activations.values(), layer.output)]
    names = list(dict.fromkeys(names))
    model = rounding.network.model
    with extra_outputs(model, names):
        run = open_runner(model, names, scratch)
    seen: list[Seen] = [dict(zip(names, values, strict=True)) for values in map_samples(run, feeds)]
    scores, scaled, attended = (seen[0][name] for name in (attention.scores.output, attention.scaled, attention.map))
    is_usual = scores.shape == scaled.shape == attended.shape and scores.ndim > 1 and scores.shape[-1] > 1
    sums = attended.sum(axis=-1)
    return seen if is_usual and bool(np.allclose(sums, 1.0, atol=1e-3)) else []


def _choose(rounding: Rounding, attention: Attention, seen: Sequence[Seen], widths: Sequence[int]) -> Grids:
    """Returns the grids of an attention's operands that are best on samples, where not those of `--ranges`."""
    factors = [_find_factor(values[attention.scores.output], values[attention.scaled]) for values in seen]

    def lose_scores(values: Seen, place: int, product: Floats) -> float:
        exact, scaled = values[attention.scores.output], values[attention.scaled]
        # What is added to the scores, or hides some, is the same whatever they are.
        with np.errstate(invalid="ignore"):
            moved = scaled + factors[place] * (product - exact)
        return measure_hinge(values[attention.map], _soften(moved)) - correlate(exact, product)

    def lose_context(values: Seen, _place: int, product: Floats) -> float:
        return -correlate(values[context.output], product) if context is not None else 0.0

    context = attention.context
    grids: Grids = {}
    for bits in widths:
        grids |= _choose_pair(rounding, attention.scores, bits, seen, lose_scores)
        if context is not None:
            grids |= _choose_pair(rounding, context, bits, seen, lose_context)
    return grids


def _choose_pair(
    rounding: Rounding, layer: Layer, bits: int, seen: Sequence[Seen], lose: Callable[[Seen, int, Floats], float]
) -> Grids:
    """Returns the grids of both operands of a product that lose least, one tried after the other."""
    plain = {place: rounding.grid(layer, tensor, bits) for place, tensor in layer.activations.items()}
    best = dict(plain)

    def measure(grids: Mapping[int, Grid]) -> float:
        total = 0.0
        for number, values in enumerate(seen):
            left, right = (_round(values[layer.activations[place]], grids[place]) for place in (0, 1))
            total += lose(values, number, left @ right)
        return total

    for shares in _SHARES:
        for place in best:
            tries = [{**best, place: replace(best[place], scale=best[place].scale * share)} for share in shares]
            best = min(tries, key=measure)
    moved = {place: grid for place, grid in best.items() if grid != plain[place]}
    return {(layer.output, layer.activations[place], bits): grid for place, grid in moved.items()}


def _round(values: Floats, grid: Grid) -> Floats:
    low, high = grid.ends
    return np.asarray(np.clip(np.rint(values / np.float32(grid.scale)), low, high) * grid.scale, np.float32)


def _soften(scores: Floats) -> Floats:
    """Returns the Softmax over the last axis."""
    raised = np.exp(scores - np.max(np.where(np.isnan(scores), -np.inf, scores), axis=-1, keepdims=True))
    raised = np.nan_to_num(raised, nan=0.0)
    return np.asarray(raised / raised.sum(axis=-1, keepdims=True), np.float32)


def _find_factor(scores: Floats, scaled: Floats) -> float:
    """Returns what scores are multiplied by before the Softmax, whatever is added to them there.

    Of neighbours the same is added, but at the edge of a mask.
    """
    with np.errstate(invalid="ignore", divide="ignore", over="ignore"):
        ratios = np.diff(scaled, axis=-1) / np.diff(scores, axis=-1)
    known = ratios[np.isfinite(ratios)]
    return float(np.median(known)) if known.size else 1.0


class HeldJudge:
    """How far rounding leads the network's answers away from FP32's, on samples that chose nothing."""

    def __init__(self, rounding: Rounding, feeds: Sequence[Feeds], outputs: Sequence[str], scratch: Path) -> None:
        self._rounding, self._feeds, self._outputs, self._scratch = rounding, feeds, list(outputs), scratch
        run = open_runner(rounding.network.model, self._outputs, scratch)
        self._exact = list(map_samples(run, feeds))

    def measure(self, grids: Mapping[tuple[str, str, int], Grid], bits: int) -> npt.NDArray[np.float64]:
        """Returns the squared error of each sample's answers as a share of them, with the same bits everywhere."""
        everywhere = {layer.output: bits for layer in self._rounding.network.layers}
        model = simulate(replace(self._rounding, grids=grids), everywhere)
        found = map_samples(open_runner(model, self._outputs, self._scratch), self._feeds)
        return np.array([_relate(exact, rounded) for exact, rounded in zip(self._exact, found, strict=True)])


def _relate(exact: Sequence[Array], rounded: Sequence[Array]) -> float:
    """Returns the squared error of float outputs, each as a share of its own square."""
    total = 0.0
    for wanted, have in zip(exact, rounded, strict=True):
        if wanted.dtype.kind == "f" and wanted.shape == have.shape:
            error = float(np.square(have.astype(np.float64) - wanted).sum())
            total += error / max(float(np.square(wanted.astype(np.float64)).sum()), float(np.finfo(np.float32).tiny))
    return total
