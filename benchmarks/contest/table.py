"""A contest as Markdown: one table a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from contest.entrants import OURS
from contest.results import Contest, ModelResult, Row, find_leaders


def show_contest(contest: Contest) -> str:
    """Returns a page with all models."""
    parts = [f"# Ours against the peers\n\n{contest.machine}, one thread. Ours are bold."]
    for result in contest.models:
        versions = ", ".join(f"{name} {version}" for name, version in result.versions.items())
        meaning = "trained weights" if result.has_meaning else "random weights, which mean nothing: time only"
        facts = (
            f"{meaning}; {result.samples} samples to calibrate on, {result.held_out} held out; {result.effort}; "
            f"{result.created}, revision {result.revision}; {versions}."
        )
        leaders = "; ".join(find_leaders(result))
        verdict = f"Peers that no file of ours on their runtime equals: {leaders}." if leaders else "No peer leads."
        parts.append(f"## {result.model}\n\n{facts}\n\n{show(result)}\n\n{verdict}")
    return "\n\n".join(parts) + "\n"


def show(result: ModelResult) -> str:
    """Returns a Markdown table, the fastest first; what has no figures comes last, with its reason."""
    measured = [row for row in result.rows if row.speedup is not None]
    measured.sort(key=lambda row: row.speedup.ratio if row.speedup else 0.0, reverse=True)
    absent = [row for row in result.rows if row.speedup is None]
    head = ["file", "runtime", "speed-up", "95 %", "by the harness", "MB"]
    head += ["agreement", "accuracy"] if result.has_meaning else ["same answers", "cosine"]
    lines = [join_cells(head), join_cells(["---", "---", *["---:"] * (len(head) - 2)])]
    lines += [join_cells(list(_cells(row, has_meaning=result.has_meaning))) for row in measured]
    text = "\n".join(lines)
    if absent:
        text += "\n\nWithout figures:\n\n" + "\n".join(f"- {row.name}: {row.reason}" for row in absent)
    return text


def join_cells(cells: Sequence[str]) -> str:
    """Returns a line of a Markdown table."""
    return f"| {' | '.join(cells)} |"


def _cells(row: Row, *, has_meaning: bool) -> Iterator[str]:
    assert row.speedup is not None
    yield f"**{row.name}**" if row.maker == OURS else row.name
    yield row.runtime or ""
    yield f"{row.speedup.ratio:.2f}"
    yield "" if row.speedup.ci95 is None else "{:.2f} to {:.2f}".format(*row.speedup.ci95)
    yield "" if row.harness_speedup is None else f"{row.harness_speedup.ratio:.2f}"
    yield "" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}"
    yield "" if row.quality is None else f"{100 * row.quality.agreement:.1f} %"
    if not has_meaning:
        yield "" if row.quality is None else f"{row.quality.cosine:.4f}"
        return
    yield "" if row.quality is None or row.quality.accuracy is None else f"{100 * row.quality.accuracy:.1f} %"
