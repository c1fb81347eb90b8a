"""Puts the layers that cost a candidate most back to float: the fewest that suffice.

Layers stand in the order of what they gain for their time, and how many of the first ones suffice is found by halving:
it takes as many evaluations as the logarithm of their number.

What that may cost goes with what it is for. A candidate that is fair can be used as it is: making it good may cost a
share of the time that it saves, by an estimate (`savings.py`), the smaller the less it misses good by. One that is poor
is saved at any price; and the user's limit goes before all speed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from modelwright.targets.quantization.budget import count_repairs
from modelwright.targets.quantization.goal import Figures, Level
from modelwright.targets.quantization.quantizer import CandidateT, ModelT, Quantizer
from modelwright.targets.quantization.savings import describe_savings, share_given_up
from modelwright.targets.quantization.sensitivity import Layer, list_within, list_worst, rank_layers, sort_by_gain
from modelwright.targets.quantization.trials import Made, Trials

_MOST_FOR_GOOD = 0.1
"""Share of the time saved that may go to make a fair candidate good where it is nearly poor, of severity 2. It falls
with the square of what is missed: a fortieth half-way, a thousandth where good, which is 1, is missed by a tenth."""
_FEW, _MANY, _ALL = 0.2, 0.5, 1.0
"""Share of the work that may go back to float to make a poor candidate good, or for a limit; to save one that is poor,
which nobody can use at any speed; and where that does not do, or the user's limit is not kept. What a layer gains then
goes before what it costs: the one that does the harm may be most of the work."""
_RIVALS = 4
"""Candidates that the worst layers are put back in: which is best without them does not show before they are spared."""


def describe_repair() -> dict[str, Any]:
    """Returns what bounds a repair: with other limits a search may choose otherwise."""
    return {
        "time_for_good": _MOST_FOR_GOOD,
        "work_for_good": _FEW,
        "work_for_fair": _MANY,
        "work_at_last": _ALL,
        "rivals": _RIVALS,
        "savings": describe_savings(),
    }


def put_layers_back(trials: Trials[CandidateT, ModelT], best: Made[CandidateT, ModelT]) -> Made[CandidateT, ModelT]:
    """Returns the candidate with the fewest layers in float that make it good, or a poor one fair; else `best`."""
    usable = best.figures.level is Level.FAIR and trials.judge.limit is None
    whole = _find_base(trials, best, as_fast=usable)
    if whole.model is None:
        return best
    candidate = whole.trial.candidate
    layers = rank_layers(trials.quantizer, trials.judge, candidate, whole.model, trials.progress)
    trials.ranked = layers
    harmful = [layer for layer in layers if layer.gain > 0]
    if usable:
        choices = _list_affordable(trials.quantizer, harmful, whole.model, best.figures)
    else:
        choices = list_worst(harmful, _FEW)
    choices = _leave_one(choices, layers)
    better = best
    if choices:
        most = _try_rivals(trials, candidate, choices[-1], as_fast=usable)
        candidate = most.trial.candidate
        few = _keep_fewest(trials, most, choices, Level.GOOD)
        if few.figures.level is Level.GOOD or (
            best.figures.level < Level.FAIR and few.figures.is_clearly_better(best.figures)
        ):
            better = few
    if trials.judge.limit is not None and better.figures.level < Level.GOOD:
        better = _save(trials, candidate, sort_by_gain(layers), better, _ALL, Level.GOOD)
    if better.figures.level < Level.FAIR:
        better = _save(trials, candidate, layers, better, _MANY, Level.FAIR)
    if better.figures.level < Level.FAIR and trials.judge.limit is None:
        # So little is left in integers then that it has to be of use.
        last = _save(trials, candidate, sort_by_gain(layers), better, _ALL, Level.FAIR)
        better = last if last.figures.level >= Level.FAIR else better
    return better


def _list_affordable(
    quantizer: Quantizer[CandidateT, ModelT], layers: Sequence[Layer], whole: ModelT, figures: Figures
) -> list[tuple[str, ...]]:
    """Returns the worst layer, the two worst, and so on, as long as a fair candidate is worth bringing back so much."""
    assert figures.severity is not None, "it is fair"
    room = _MOST_FOR_GOOD * (figures.severity - 1.0) ** 2
    works = quantizer.works(whole)
    return list_within(layers, room, lambda names: share_given_up(works, names, quantizer.starting))


def _save(
    trials: Trials[CandidateT, ModelT],
    candidate: CandidateT,
    layers: Sequence[Layer],
    best: Made[CandidateT, ModelT],
    share: float,
    level: Level,
) -> Made[CandidateT, ModelT]:
    """Returns a candidate with the layers of a share in float that reach a level, or lose half as much; else `best`."""
    choices = _leave_one(list_worst(layers, share), layers)
    if not choices:
        return best
    many = _keep_fewest(trials, trials.attempt(candidate, choices[-1]), choices, level)
    return many if many.figures.is_clearly_better(best.figures) else best


def _leave_one(choices: Sequence[tuple[str, ...]], layers: Sequence[Layer]) -> list[tuple[str, ...]]:
    """Returns the choices that leave a layer quantized: what has none is no quantized model, whatever is asked for."""
    return [kept for kept in choices if len(kept) < len(layers)]


def _find_base(
    trials: Trials[CandidateT, ModelT], best: Made[CandidateT, ModelT], *, as_fast: bool
) -> Made[CandidateT, ModelT]:
    """Returns the candidate whose layers are ranked, without any in float."""
    candidate = trials.quantizer.base(best.trial.candidate, as_fast=as_fast)
    if candidate == best.trial.candidate:
        return best
    known = next((trial for trial in trials.made if trial.candidate == candidate), None)
    return trials.attempt(candidate) if known is None else trials.make_again(known)


def _try_rivals(
    trials: Trials[CandidateT, ModelT], first: CandidateT, kept: tuple[str, ...], *, as_fast: bool
) -> Made[CandidateT, ModelT]:
    """Returns the best of several candidates with the same layers in float: the first where none is better.

    Of several that are good and not as fast as each other, the runtime takes one, as of those without layers in float;
    of several groups, one of the fastest that does as well.
    """
    ranked = sorted(trials.made, key=lambda trial: trial.figures.rank, reverse=True)
    own = (trial for trial in ranked if not trial.kept and trial.same_as is None)
    whole = (trials.quantizer.base(trial.candidate, as_fast=as_fast) for trial in own)
    rivals = list(dict.fromkeys((first, *whole)))[: min(_RIVALS, count_repairs(trials.judge, len(kept)))]
    best: Made[CandidateT, ModelT] | None = None
    tried, good = [], []
    for candidate in rivals:
        made = trials.attempt(candidate, kept)
        tried.append(made.trial)
        good += [made.trial] if made.figures.level is Level.GOOD else []
        if best is None or made.figures.rank > best.figures.rank:
            best = made
    assert best is not None, "the first is always tried"
    if len(good) > 1 and not trials.quantizer.equally_fast:
        chosen = trials.quantizer.choose(good)
    else:
        chosen = trials.prefer_faster(best.trial, tried)
    return best if chosen is best.trial else trials.make_again(chosen)


def _keep_fewest(
    trials: Trials[CandidateT, ModelT],
    most: Made[CandidateT, ModelT],
    choices: Sequence[tuple[str, ...]],
    level: Level,
) -> Made[CandidateT, ModelT]:
    """Halves its way to the fewest layers in float that suffice.

    Args:
        trials: Tries them.
        most: A candidate with the most layers in float: returned where that is below the level.
        choices: Layers to keep, fewer first, each with those of the ones before.
        level: To reach.
    """
    found = most
    short, enough = -1, len(choices) - 1
    for _ in range(count_repairs(trials.judge, len(choices))):
        tried = (short + enough) // 2
        if most.figures.level < level or not short < tried < enough:
            break
        made = trials.attempt(most.trial.candidate, choices[tried])
        if made.figures.level >= level:
            found, enough = made, tried
        else:
            short = tried
    return found
