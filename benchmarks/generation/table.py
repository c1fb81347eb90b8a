"""A contest of language models as Markdown: one table a model."""

from __future__ import annotations

from collections.abc import Iterator

from contest.entrants import OURS
from contest.table import join_cells
from generation.results import Contest, Export, ModelResult, Row, find_leaders


def show_contest(contest: Contest) -> str:
    """Returns a page with all models."""
    parts = [f"# Language models: ours beside the peers\n\n{contest.machine}. Ours are bold."]
    for result in contest.models:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        judged = f"perplexity on {result.judged_tokens:,} tokens" if result.has_meaning else "random weights: time only"
        revised = f"{result.created}, revision {result.revision}"
        facts = (
            f"{result.parameters / 1e6:,.0f} M parameters; {result.threads} threads, batch 1, answers of "
            f"{result.new_tokens} tokens; speed-up over {result.baseline}; {judged}; "
            f"{result.effort}; {revised}; "
            f"{versions}."
        )
        parts += [f"## {result.model}", facts, *map(_describe_export, result.exports), show(result)]
    return "\n\n".join(parts) + "\n"


def show(result: ModelResult) -> str:
    """Returns a Markdown table, the fastest first, who is ahead, and what has no figures, with its reason."""
    measured = [row for row in result.rows if row.speedup is not None]
    measured.sort(key=lambda row: row.speedup.ratio if row.speedup else 0.0, reverse=True)
    head = ["artifact", "ms a token", "p95", "speed-up", "95 %", "first ms", f"first of {result.opening_tokens}"]
    head += ["peak MB", "file MB"]
    if result.has_meaning:
        head += ["perplexity", "growth", "95 %", "top-1"]
    lines = [join_cells(head), join_cells(["---", *["---:"] * (len(head) - 1)])]
    lines += [join_cells(list(_cells(row, has_meaning=result.has_meaning))) for row in measured]
    parts = ["\n".join(lines)]
    if result.has_meaning:
        parts.append(f"Peers ahead on both: {'; '.join(find_leaders(result)) or 'none'}.")
    notes = [f"- {row.name}: {text}" for row in result.rows for text in (row.reason, row.note) if text]
    if notes:
        parts.append("To be known:\n\n" + "\n".join(notes))
    return "\n\n".join(parts)


def _describe_export(export: Export) -> str:
    how = " with `--low-memory`" if export.low_memory else ""
    return (
        f"Exporting it{how} took {export.took_s:.0f} s and {export.peak_memory_bytes / 1e9:.1f} GB at most, "
        f"{export.peak_memory_bytes / export.weights_bytes:.2f} times the {export.weights_bytes / 1e9:.1f} GB of its "
        "weights in FP32."
    )


def _cells(row: Row, *, has_meaning: bool) -> Iterator[str]:
    assert row.speedup is not None
    yield f"**{row.name}**" if row.maker == OURS else row.name
    yield _number(row.token_ms, 2)
    yield _number(row.token_p95_ms, 2)
    yield f"{row.speedup.ratio:.2f}"
    yield "" if row.speedup.ci95 is None else "{:.2f} to {:.2f}".format(*row.speedup.ci95)
    yield _number(row.first_ms, 1)
    yield _number(row.opening_ms, 1)
    yield _number(row.peak_memory_bytes, 0, 1e6)
    yield _number(row.size_bytes, 0, 1e6)
    if has_meaning:
        yield _number(row.perplexity, 2)
        yield "" if row.increase is None else f"{100 * row.increase.value:+.2f} %"
        interval = None if row.increase is None else row.increase.ci95
        yield "" if interval is None else f"{100 * interval[0]:+.2f} to {100 * interval[1]:+.2f}"
        yield "" if row.agreement is None else f"{100 * row.agreement.value:.1f} %"


def _number(value: float | None, places: int, unit: float = 1.0) -> str:
    return "" if value is None else f"{value / unit:.{places}f}"
