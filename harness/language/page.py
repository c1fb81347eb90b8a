"""`report.html` of a comparison of language artifacts: one file that opens anywhere, without network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from modelwright.harness.formatting import format_bytes, format_percent, format_ratio, format_significant
from modelwright.harness.language.drawings import draw_all, draw_front
from modelwright.harness.language.figures import FIGURES, describe_interval
from modelwright.harness.language.record import LanguageComparison, LanguageRow
from modelwright.harness.language.terminal import detail_lines, missing_lines, quality_lines
from modelwright.harness.report.page import load_template

_BY_KEY = {figure.key: figure for figure in FIGURES}
_HEADS = {
    "token_ms.p50": ("a token", "ms, median"),
    "token_ms.p95": ("a token", "ms, 95 % are faster"),
    "token_ms.p99": ("a token", "ms, 99 % are faster"),
    "speedup": ("speed-up", "per token"),
    "tokens_per_s": ("tokens", "a second"),
    "first_token_ms.p50": ("first token", "ms, median"),
    "answer_ms.p50": ("answer", "ms, median"),
    "prompts_per_s": ("answers", "a second"),
    "offline.tokens_per_s": ("tokens at once", "a second"),
    "offline.prompts_per_s": ("answers at once", "a second"),
    "energy_per_token_j": ("energy", "J a token"),
    "carbon_per_token_g": ("carbon", "g CO2e a token"),
    "peak_memory_mb": ("memory", "MB, peak"),
    "cache_mb": ("keys, values", "MB of it"),
    "size_mb": ("files", "MB"),
    "load_ms": ("loading", "ms"),
    "perplexity": ("perplexity", ""),
    "perplexity_increase": ("over FP32", "perplexity"),
    "bits_per_byte": ("a byte of text", "bits"),
    "agreement": ("next token", "% as FP32"),
    "divergence": ("divergence", "nats from FP32"),
    "decoding_cost": ("by its cache", "nats more"),
    "batched_decoding_cost": ("in a batch", "nats more"),
    "answers_exact": ("answers", "% word for word"),
    "answers_similarity": ("answers", "% alike"),
    "questions_whole": ("whole choice", "% right (acc)"),
    "questions_by_character": ("a character", "% right (acc_norm)"),
    "questions_by_byte": ("a byte", "% right (acc_bytes)"),
    "questions_by_token": ("a token", "% right"),
}
"""Key of a figure -> what stands over its column, and under that in small."""
_AT_ONCE = ("offline.tokens_per_s", "offline.prompts_per_s")
_PARTS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    (
        "Side by side",
        "One prompt at a time, in turns with all others. Under a figure: both ends of its 95 % interval.",
        (
            *("token_ms.p50", "speedup", "first_token_ms.p50", "answer_ms.p50", "peak_memory_mb", "size_mb"),
            *("perplexity_increase", "agreement"),
        ),
    ),
    (
        "Quality",
        "Beside FP32, on the text that judges.",
        ("perplexity", "perplexity_increase", "bits_per_byte", "agreement", "divergence"),
    ),
    (
        "Writing",
        "Answers beside FP32's, and what writing token by token costs beyond reading the same text at once.",
        ("answers_exact", "answers_similarity", "decoding_cost", "batched_decoding_cost"),
    ),
    (
        "Questions",
        "The likeliest choice is taken: as a whole, or for its length. Of all tasks together.",
        ("questions_whole", "questions_by_character", "questions_by_byte", "questions_by_token"),
    ),
    (
        "More of speed",
        "At once: several prompts in a batch.",
        ("token_ms.p95", "token_ms.p99", "tokens_per_s", "prompts_per_s", *_AT_ONCE),
    ),
    (
        "What else it takes",
        "Memory is of the whole process, Python and the runtime included; keys and values are a part of it.",
        ("energy_per_token_j", "carbon_per_token_g", "cache_mb", "load_ms"),
    ),
)
_MANY_COLUMNS = 7
_Table = tuple[str, str, list[tuple[str, str]], list[tuple[LanguageRow, list[tuple[str, str]]]]]


def render_language_page(comparison: LanguageComparison) -> str:
    """Returns the page."""
    verdict = comparison.verdict
    assert verdict is not None, "judged before it is shown"
    rows = [row for name in verdict.order if (row := comparison.find(name)) is not None]
    measured = [row for row in rows if row.measured]
    ship = comparison.find(verdict.ship)
    environment = comparison.environment
    return load_template(Path(__file__).parent, "page.html.j2").render(
        title=f"{comparison.model.source.path}: which target to ship",
        subtitle=[
            f"on {environment.device}",
            f"profile {comparison.profile}",
            f"{comparison.timestamp[:19].replace('T', ' ')} UTC",
        ],
        verdict=verdict,
        ship=ship,
        warnings=list(dict.fromkeys([*comparison.warnings, *verdict.warnings])),
        tiles=list(_choose_tiles(ship, comparison)) if ship is not None else [],
        tables=list(_tabulate(measured)),
        many_columns=_MANY_COLUMNS,
        scatter=draw_front(measured, verdict.ship),
        figures=list(draw_all(measured, verdict.ship)),
        unmeasured=[row for row in rows if not row.measured],
        facts=list(_list_facts(comparison)),
        missing=[*quality_lines(measured), *_list_questions(measured), *missing_lines(measured)],
        details=[(row, list(detail_lines(row))) for row in measured],
        run_id=comparison.run_id,
        versions=", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items())),
    )


def _tabulate(rows: Sequence[LanguageRow]) -> Iterator[_Table]:
    """Yields the tables with a figure of any row: name, what it says, heads and cells."""
    for name, note, asked in _PARTS:
        keys = [key for key in asked if any(_BY_KEY[key].read(row) is not None for row in rows)]
        if keys:
            figures = [_BY_KEY[key] for key in keys]
            cells = [(row, [(one.cell(row), describe_interval(one, row)) for one in figures]) for row in rows]
            yield name, note, [_HEADS[key] for key in keys], cells


def _choose_tiles(ship: LanguageRow, comparison: LanguageComparison) -> Iterator[tuple[str, str, str]]:
    """Yields label, figure and note of what is told first."""
    base = comparison.find(comparison.baseline)
    if ship.speedup is not None and ship is not base and base is not None:
        yield "per token", f"{format_ratio(ship.speedup.ratio)} as fast", f"as {base.title}"
    for key, label in (("token_ms.p50", "a token"), ("answer_ms.p50", "an answer"), ("peak_memory_mb", "memory")):
        figure = _BY_KEY[key]
        if figure.read(ship) is not None:
            unit = "MB" if key == "peak_memory_mb" else "ms"
            before = "" if base is None or ship is base else f"{base.title}: {figure.cell(base)} {unit}"
            yield label, f"{figure.cell(ship)} {unit}", before
    if ship.quality is not None and ship is not base:
        change = _BY_KEY["perplexity_increase"]
        yield "perplexity", change.cell(ship), describe_interval(change, ship)


def _list_questions(rows: Sequence[LanguageRow]) -> Iterator[str]:
    """Yields how each target does in each task, in words."""
    for row in rows:
        for task in () if row.quality is None else row.quality.tasks:
            whole, norm = task.whole, task.by_character
            kept = ""
            if whole.kept_ci95 is not None:
                ends = " to ".join(format_percent(end) for end in whole.kept_ci95)
                kept = f", of FP32's right answers {format_percent(whole.kept / whole.correct_fp32)} kept ({ends})"
            yield (
                f"{row.title}, {task.name}: {whole.correct} of {task.count} right by the whole choice{kept}; "
                f"{norm.correct} by its likelihood a character"
            )


def _list_facts(comparison: LanguageComparison) -> Iterator[tuple[str, str]]:
    """Yields what it was measured on and how."""
    model, settings, texts = comparison.model, comparison.settings, comparison.texts
    yield "model", model.summarize()
    yield "cache of a token", format_bytes(model.cache_bytes_per_token) + " in FP32"
    for name in ("calibration", "tuning", "evaluation"):
        part = getattr(texts, name)
        if part is not None:
            yield f"{name} text", f"{part.tokens:,} tokens of {part.texts} texts in {part.path}"
    yield "answers", f"{settings.new_tokens} tokens each, always the likeliest one; {settings.prompts} prompts in turns"
    launches = "1 launch" if settings.launches == 1 else f"{settings.launches} launches"
    yield "effort", f"{settings.effort}: {settings.rounds} rounds in {launches}"
    yield "threads", str(settings.threads)
    if settings.batch > 1:
        yield "offline", f"{settings.batch} prompts at once"
    if comparison.max_perplexity_increase is not None:
        yield "limit", f"perplexity {format_significant(comparison.max_perplexity_increase * 100)} % above FP32's"
