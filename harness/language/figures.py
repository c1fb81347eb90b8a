"""The figures of language artifacts: one table that the terminal, the page and results.csv all read."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from modelwright.core.records.language_artifact import Decoding
from modelwright.harness.formatting import (
    MISSING,
    format_interval,
    format_megabytes,
    format_percent_number,
    format_ratio,
    format_significant,
)
from modelwright.harness.language.limits import format_change
from modelwright.harness.language.record import LanguageRow
from modelwright.harness.results.statistics import wilson_interval


@dataclass(frozen=True, kw_only=True)
class LanguageFigure:
    """A figure of a row.

    Attributes:
        key: Names it in results.csv, unit included.
        title: For people.
        head: Short, for a table; None keeps it out of the terminal's.
        read: Returns it; None where there is none.
        show: Returns it as people read it, without a unit that the head has.
        interval: Returns both ends of its interval; None where there is none.
        under: Key of the figure that it stands under, where a target has two lines.
        estimated: Whether a row's figure is an estimate.
    """

    key: str
    title: str
    read: Callable[[LanguageRow], float | None]
    show: Callable[[float], str] = format_significant
    head: str | None = None
    interval: Callable[[LanguageRow], tuple[float, float] | None] = lambda _row: None
    under: str | None = None
    estimated: Callable[[LanguageRow], bool] = lambda _row: False

    def cell(self, row: LanguageRow) -> str:
        """Returns what a table shows."""
        value = self.read(row)
        if value is None:
            return MISSING
        return f"{'~' if self.estimated(row) else ''}{self.show(value)}"


def _first_ms(row: LanguageRow) -> float | None:
    return None if row.first_token_ms is None else row.first_token_ms.typical


def _answer_ms(row: LanguageRow) -> float | None:
    return None if row.answer_ms is None else row.answer_ms.typical


def _decoding(row: LanguageRow) -> Decoding | None:
    return None if row.quality is None else row.quality.decoding


def _answers_exact(row: LanguageRow) -> float | None:
    answers = None if row.quality is None else row.quality.answers
    return None if answers is None else answers.exact / answers.count


def _pool(row: LanguageRow, way: str) -> tuple[int, int] | None:
    """Returns how many questions of all tasks are answered rightly in one way, and how many there are."""
    tasks = () if row.quality is None else row.quality.tasks
    count = sum(task.count for task in tasks)
    return (sum(getattr(task, way).correct for task in tasks), count) if count else None


def _share_of_questions(way: str) -> Callable[[LanguageRow], float | None]:
    return lambda row: None if (pool := _pool(row, way)) is None else pool[0] / pool[1]


def _interval_of_questions(way: str) -> Callable[[LanguageRow], tuple[float, float] | None]:
    return lambda row: None if (pool := _pool(row, way)) is None else wilson_interval(*pool)


WAYS = {
    "whole": "by the likelihood of the whole choice (lm-eval's acc)",
    "by_character": "by likelihood a character (acc_norm)",
    "by_byte": "by likelihood a byte (acc_bytes)",
    "by_token": "by likelihood a token",
}
"""How choices are compared -> what people are told of it."""


def _percent(value: float) -> str:
    # An end of an interval that is 1 up to rounding.
    return format_percent_number(1.0 if value > 1 - 1e-9 else value)


def _nats(value: float) -> str:
    # FP32's distributions are kept in single precision.
    return "<1e-6" if value < 1e-6 else format_significant(value, 2) if value >= 1e-3 else f"{value:.0e}"


def _more_nats(value: float) -> str:
    return "0" if abs(value) < 1e-6 else f"{value:+.2g}"


FIGURES: Sequence[LanguageFigure] = (
    LanguageFigure(
        key="token_ms.p50",
        title="time per output token, median (ms)",
        head="token ms",
        read=lambda row: None if row.token_ms is None else row.token_ms.typical,
    ),
    LanguageFigure(
        key="token_ms.p95",
        title="time per output token, 95th percentile (ms)",
        head="p95",
        read=lambda row: None if row.token_ms is None else row.token_ms.p95,
        under="token_ms.p50",
    ),
    LanguageFigure(
        key="token_ms.p99",
        title="time per output token, 99th percentile (ms)",
        read=lambda row: None if row.token_ms is None else row.token_ms.p99,
    ),
    LanguageFigure(
        key="speedup",
        title="times as fast per token as the baseline",
        head="speed-up",
        read=lambda row: None if row.speedup is None else row.speedup.ratio,
        show=format_ratio,
        interval=lambda row: None if row.speedup is None else row.speedup.ci95,
    ),
    LanguageFigure(
        key="tokens_per_s",
        title="output tokens a second, of whole answers",
        head="tokens/s",
        read=lambda row: row.tokens_per_s,
        under="speedup",
    ),
    LanguageFigure(
        key="first_token_ms.p50",
        title="time to the first token, median (ms)",
        head="first ms",
        read=_first_ms,
    ),
    LanguageFigure(
        key="answer_ms.p50",
        title="time of a whole answer, median (ms)",
        head="answer",
        read=_answer_ms,
        under="first_token_ms.p50",
    ),
    LanguageFigure(
        key="prompts_per_s",
        title="prompts a second, one after the other",
        read=lambda row: row.prompts_per_s,
    ),
    LanguageFigure(
        key="offline.tokens_per_s",
        title="output tokens a second, several prompts at once",
        read=lambda row: None if row.offline is None else row.offline.tokens_per_s,
    ),
    LanguageFigure(
        key="offline.prompts_per_s",
        title="prompts a second, several at once",
        read=lambda row: None if row.offline is None else row.offline.prompts_per_s,
    ),
    LanguageFigure(
        key="peak_memory_mb",
        title="peak memory of the process (MB)",
        head="peak MB",
        read=lambda row: row.peak_memory_bytes,
        show=format_megabytes,
    ),
    LanguageFigure(
        key="cache_mb",
        title="keys and values at the end of an answer (MB)",
        head="cache",
        read=lambda row: row.cache_bytes,
        show=format_megabytes,
        under="peak_memory_mb",
    ),
    LanguageFigure(
        key="size_mb",
        title="size of the artifact's files (MB)",
        head="files MB",
        read=lambda row: row.size_bytes,
        show=format_megabytes,
    ),
    LanguageFigure(
        key="load_ms",
        title="time to load (ms)",
        read=lambda row: row.load_ms,
    ),
    LanguageFigure(
        key="perplexity",
        title="perplexity",
        head="ppl",
        read=lambda row: None if row.quality is None else row.quality.perplexity,
    ),
    LanguageFigure(
        key="perplexity_increase",
        title="perplexity above FP32's",
        head="over FP32",
        read=lambda row: None if row.quality is None else row.quality.increase.value,
        show=format_change,
        interval=lambda row: None if row.quality is None else row.quality.increase.ci95,
        under="perplexity",
    ),
    LanguageFigure(
        key="bits_per_byte",
        title="bits per byte",
        read=lambda row: None if row.quality is None else row.quality.bits_per_byte,
    ),
    LanguageFigure(
        key="agreement",
        title="likeliest next token is FP32's (%)",
        head="top-1 %",
        read=lambda row: None if row.quality is None else row.quality.agreement.value,
        show=_percent,
        interval=lambda row: None if row.quality is None else row.quality.agreement.ci95,
    ),
    LanguageFigure(
        key="divergence",
        title="divergence of next-token distributions from FP32's (nats)",
        head="KL",
        read=lambda row: None if row.quality is None else row.quality.divergence.value,
        show=_nats,
        interval=lambda row: None if row.quality is None else row.quality.divergence.ci95,
        under="agreement",
    ),
    LanguageFigure(
        key="decoding_cost",
        title="what writing with the cache costs beyond reading at once (nats)",
        read=lambda row: None if (found := _decoding(row)) is None else found.alone.value,
        show=_more_nats,
        interval=lambda row: None if (found := _decoding(row)) is None else found.alone.ci95,
    ),
    LanguageFigure(
        key="batched_decoding_cost",
        title="the same, of several prompts at once (nats)",
        read=lambda row: None if (found := _decoding(row)) is None else found.together.value,
        show=_more_nats,
        interval=lambda row: None if (found := _decoding(row)) is None else found.together.ci95,
    ),
    LanguageFigure(
        key="answers_exact",
        title="answers that are FP32's word for word (%)",
        read=_answers_exact,
        show=_percent,
        interval=lambda row: (
            None if row.quality is None or row.quality.answers is None else row.quality.answers.exact_ci95
        ),
    ),
    LanguageFigure(
        key="answers_similarity",
        title="similarity of answers to FP32's (%)",
        read=lambda row: (
            None if row.quality is None or row.quality.answers is None else row.quality.answers.similarity.value
        ),
        show=_percent,
        interval=lambda row: (
            None if row.quality is None or row.quality.answers is None else row.quality.answers.similarity.ci95
        ),
    ),
    *(
        LanguageFigure(
            key=f"questions_{way}",
            title=f"questions answered rightly, {told} (%)",
            read=_share_of_questions(way),
            show=_percent,
            interval=_interval_of_questions(way),
        )
        for way, told in WAYS.items()
    ),
    LanguageFigure(
        key="energy_per_token_j",
        title="energy a token (J)",
        head="J/token",
        under="size_mb",
        read=lambda row: None if row.energy is None else row.energy.per_inference_j,
        estimated=lambda row: row.energy is not None and row.energy.is_estimated,
    ),
    LanguageFigure(
        key="carbon_per_token_g",
        title="CO2e a token (g)",
        read=lambda row: None if row.carbon is None else row.carbon.per_inference_g,
        show=lambda value: f"{value:.2e}",
        estimated=lambda row: row.energy is not None and row.energy.is_estimated,
    ),
)


def describe_interval(figure: LanguageFigure, row: LanguageRow) -> str:
    """Returns both ends of a figure's interval as people read them; empty where there is none."""
    ends = figure.interval(row)
    if ends is None:
        return ""
    if figure.show is format_ratio:
        return format_interval(*ends)
    return f"{figure.show(ends[0])} to {figure.show(ends[1])}"
