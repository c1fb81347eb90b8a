"""Which artifact of a language model to ship, in a sentence: as fast as can be had for next to no perplexity."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec.structs import replace

from modelwright.harness.formatting import format_interval, join_words
from modelwright.harness.language.limits import format_change
from modelwright.harness.language.record import LanguageComparison, LanguageRow, LanguageVerdict
from modelwright.harness.results.statistics import SpeedRatio

UNASKED_INCREASE = 0.01
"""Of perplexity, that is shipped where the user set no limit: what weights of 8 bits cost at most on models that were
tried. More is the user's to allow."""
_FEW_TOKENS = 1000
_FEW_TEXTS = 16
"""Texts differ by more than their parts do: in simulations with an effect of each text of 0.2 nats, 95 % intervals over
blocks of tokens held 77 % of the time with 4 texts, 93 % with 16."""
_MUCH_REPEATED = 0.05
"""Of the text that judges; what conversations begin with may be repeated."""


def judge(comparison: LanguageComparison) -> LanguageComparison:
    """Returns a comparison with its verdict."""
    return replace(comparison, verdict=_find_verdict(comparison))


def _find_verdict(comparison: LanguageComparison) -> LanguageVerdict:
    rows = sorted(comparison.measured, key=_typical_ms)
    others = sorted((row for row in comparison.rows if not row.measured), key=lambda row: row.status == "failed")
    order = tuple(row.target for row in (*rows, *others))
    warnings = tuple(_warn(comparison, rows))
    allowed = comparison.max_perplexity_increase
    bound = UNASKED_INCREASE if allowed is None else allowed
    good = [row for row in rows if row.quality is not None and row.quality.increase.value <= bound]
    base = comparison.find(comparison.baseline)
    if not good:
        told = f"keeps perplexity within {bound * 100:g} % of FP32's" if rows else "was measured"
        return LanguageVerdict(
            ship=None, sentence=f"No recommendation: nothing {told}.", warnings=warnings, order=order
        )
    ship = _prefer(good)
    parts = [f"Ship {ship.title}: {_describe(ship, base)}."]
    if ship is base and len(rows) > 1:
        parts = [f"Ship {ship.title}: of what keeps perplexity within {bound * 100:g} %, nothing is faster."]
    parts += _offer(ship, rows, good, allowed)
    return LanguageVerdict(ship=ship.target, sentence=" ".join(parts), warnings=warnings, order=order)


def _prefer(good: Sequence[LanguageRow]) -> LanguageRow:
    """Returns the fastest; among those whose intervals overlap with its own the one of the least memory."""
    first = good[0]
    alike = [row for row in good if row is first or _overlap(first.speedup, row.speedup)]
    return min(alike, key=lambda row: (row.peak_memory_bytes is None, row.peak_memory_bytes or 0))


def _overlap(one: SpeedRatio | None, other: SpeedRatio | None) -> bool:
    if one is None or other is None or one.ci95 is None or other.ci95 is None:
        return False
    return one.ci95[0] <= other.ci95[1] and other.ci95[0] <= one.ci95[1]


def _describe(row: LanguageRow, base: LanguageRow | None) -> str:
    """Returns `5.3 times as fast per token as PyTorch FP32, 74 % less memory, perplexity +0.5 %`."""
    parts = []
    if base is not None and row is not base and row.speedup is not None:
        ratio = row.speedup
        interval = "" if ratio.ci95 is None else f" (95 % interval {format_interval(*ratio.ci95, separator=' to ')})"
        if ratio.is_same:
            parts.append(f"as fast per token as {base.title}{interval}")
        else:
            parts.append(f"{_times(ratio)} as fast per token as {base.title}{interval}")
    memory = compare_memory(row, base)
    if memory is not None:
        size = f"{abs(memory) * 100:.0f} %"
        parts.append("the same memory" if size == "0 %" else f"{size} {'less' if memory < 0 else 'more'} memory")
    if row.quality is not None and row is not base:
        change = format_change(row.quality.increase.value)
        parts.append("perplexity unchanged" if change == "0 %" else f"perplexity {change}")
    return ", ".join(parts) or "nothing else was measured"


def _times(found: SpeedRatio) -> str:
    """Returns `5.3 times`, `1,451 times`."""
    return f"{found.ratio:.2g} times" if found.ratio < 99.5 else f"{found.ratio:,.0f} times"


def compare_memory(row: LanguageRow, base: LanguageRow | None) -> float | None:
    """Returns by what share a row's peak memory is above the baseline's; None where it cannot be told."""
    if base is None or row is base or not row.peak_memory_bytes or not base.peak_memory_bytes:
        return None
    return row.peak_memory_bytes / base.peak_memory_bytes - 1


def _offer(
    ship: LanguageRow, rows: Sequence[LanguageRow], good: Sequence[LanguageRow], allowed: float | None
) -> Iterator[str]:
    """Yields what is faster and why it is not shipped."""
    for row in rows:
        if row in good or row.quality is None or row.speedup is None:
            continue
        if ship.speedup is None or row.speedup.ratio <= ship.speedup.ratio:
            continue
        told = f"{row.title} is {_times(row.speedup)} as fast at perplexity {format_change(row.quality.increase.value)}"
        if allowed is None:
            yield f"{told}; --max-perplexity-increase says whether that is worth it to you."
        else:
            yield f"{told}, more than you allow."
        return


def _typical_ms(row: LanguageRow) -> float:
    typical = None if row.token_ms is None else row.token_ms.typical
    return float("inf") if typical is None else typical


def _warn(comparison: LanguageComparison, rows: Sequence[LanguageRow]) -> Iterator[str]:
    """Yields what to know before believing it."""
    judged = comparison.texts.evaluation
    predicted = max((row.quality.tokens for row in rows if row.quality is not None), default=0)
    if judged is not None and 0 < predicted < _FEW_TOKENS:
        yield (
            f"Quality was judged on {predicted} tokens of text: the intervals are wide; give more by --samples "
            "or --eval."
        )
    elif judged is not None and predicted and judged.texts < _FEW_TEXTS:
        texts = "one text" if judged.texts == 1 else f"{judged.texts} texts"
        yield (
            f"Quality was judged on {texts}: the intervals speak of text like that; for other text give many of "
            "its kind by --eval, such as a .jsonl."
        )
    repeated = comparison.texts.repeated
    if repeated is not None and repeated > _MUCH_REPEATED:
        yield (
            f"{repeated * 100:.0f} % of the text that judges stands word for word in what calibrates and tunes: "
            "quality may look better than it is; give other text by --eval."
        )
    unsure = [
        row.title
        for row in rows
        if row.quality is not None
        and row.quality.max_increase is not None
        and row.quality.increase.ci95 is not None
        and row.quality.increase.value <= row.quality.max_increase < row.quality.increase.ci95[1]
    ]
    if unsure:
        yield f"{join_words(unsure)}: within --max-perplexity-increase on this text, but not beyond doubt."
