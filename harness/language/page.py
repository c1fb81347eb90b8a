"""`report.html` of a comparison of language artifacts: one file that opens anywhere, without network."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from markupsafe import Markup

from modelwright.harness.formatting import format_bytes, format_significant
from modelwright.harness.language.figures import FIGURES, LanguageFigure, describe_interval
from modelwright.harness.language.record import LanguageComparison, LanguageRow
from modelwright.harness.language.terminal import detail_lines, missing_lines, quality_lines
from modelwright.harness.report.charts import Bar, draw_bars
from modelwright.harness.report.page import load_template

_COLORS = 6
_BY_KEY = {figure.key: figure for figure in FIGURES}
_SPEED = ("token_ms.p50", "token_ms.p95", "token_ms.p99", "speedup", "tokens_per_s", "first_token_ms.p50")
_WHOLE = ("answer_ms.p50", "prompts_per_s", "offline.tokens_per_s", "offline.prompts_per_s", "energy_per_token_j")
_COST = ("peak_memory_mb", "cache_mb", "size_mb", "load_ms", "carbon_per_token_g")
_QUALITY = ("perplexity", "perplexity_increase", "bits_per_byte", "agreement", "divergence", "decoding_cost")
_ANSWERS = ("answers_exact", "answers_similarity")
_CHARTS = ("token_ms.p50", "first_token_ms.p50", "peak_memory_mb", "perplexity", "energy_per_token_j")
_Table = tuple[str, str, list[str], list[tuple[LanguageRow, list[tuple[str, str]]]]]


def render_language_page(comparison: LanguageComparison) -> str:
    """Returns the page."""
    verdict = comparison.verdict
    assert verdict is not None, "judged before it is shown"
    rows = [row for name in verdict.order if (row := comparison.find(name)) is not None]
    measured = [row for row in rows if row.measured]
    environment = comparison.environment
    return load_template(Path(__file__).parent, "page.html.j2").render(
        title=f"{comparison.model.source.path}: which target to ship",
        subtitle=[
            f"on {environment.device}",
            f"profile {comparison.profile}",
            f"{comparison.timestamp[:19].replace('T', ' ')} UTC",
        ],
        verdict=verdict,
        ship=comparison.find(verdict.ship),
        warnings=list(dict.fromkeys([*comparison.warnings, *verdict.warnings])),
        tables=list(_tabulate(measured)),
        figures=list(_draw(measured, verdict.ship)),
        unmeasured=[row for row in rows if not row.measured],
        facts=list(_list_facts(comparison)),
        missing=[*quality_lines(measured), *missing_lines(measured)],
        details=[(row, list(detail_lines(row))) for row in measured],
        run_id=comparison.run_id,
        versions=", ".join(f"{name} {version}" for name, version in sorted(environment.versions.items())),
    )


def _tabulate(rows: Sequence[LanguageRow]) -> Iterator[_Table]:
    """Yields the tables with a figure of any row: name, what it says, heads and cells."""
    parts = (
        ("Speed", "One prompt at a time, in turns with all others; intervals are over launches.", (*_SPEED, *_WHOLE)),
        ("Quality", "Against FP32, on text that neither calibrated nor tuned.", (*_QUALITY, *_ANSWERS)),
        ("What it takes", "Memory is of the whole process, Python and the runtime included.", _COST),
    )
    for name, note, keys in parts:
        figures = [_BY_KEY[key] for key in keys if any(_BY_KEY[key].read(row) is not None for row in rows)]
        if figures:
            cells = [(row, [(one.cell(row), describe_interval(one, row)) for one in figures]) for row in rows]
            yield name, note, [figure.title for figure in figures], cells


def _draw(rows: Sequence[LanguageRow], ship: str | None) -> Iterator[tuple[str, Markup]]:
    """Yields name and drawing of the figures that are compared by length."""
    runtimes = list(dict.fromkeys(row.runtime for row in rows))
    for key in _CHARTS:
        figure = _BY_KEY[key]
        if any(figure.read(row) is not None for row in rows):
            bars = [_make_bar(figure, row, runtimes.index(row.runtime) % _COLORS, ship) for row in rows]
            yield figure.title, draw_bars(bars, title=figure.title, hatch_id=f"hatch-{key.replace('.', '-')}")


def _make_bar(figure: LanguageFigure, row: LanguageRow, color: int, ship: str | None) -> Bar:
    upper = row.token_ms.p95 if figure.key == "token_ms.p50" and row.token_ms is not None else None
    return Bar(
        label=row.title,
        value=figure.read(row),
        text=figure.cell(row),
        color=color,
        upper=upper,
        estimated=figure.estimated(row),
        is_ship=row.target == ship,
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
    yield "effort", f"{settings.effort}: {settings.rounds} rounds in {settings.launches} launches"
    yield "threads", str(settings.threads)
    if settings.batch > 1:
        yield "offline", f"{settings.batch} prompts at once"
    if comparison.max_perplexity_increase is not None:
        yield "limit", f"perplexity {format_significant(comparison.max_perplexity_increase * 100)} % above FP32's"
