"""What a contest found: typed, kept as JSON, shown as one table a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from contest.entrants import OURS
from contest.quality import Quality

from modelwright.core.records.codec import Count, Record
from modelwright.harness.kinds import Figure
from modelwright.harness.results.statistics import SAME_SPEED, SpeedRatio


class Row(Record, kw_only=True):
    """One file, or why there is none.

    Attributes:
        name: Of the target, or of the peer's way.
        maker: `modelwright` or the distribution.
        runtime: That ran it.
        size_bytes: Of what the runtime loads.
        build_s: Seconds that making it took, on a machine that did other things too.
        p50_ms: Median of all inferences, by the plain API.
        speedup: Over ONNX Runtime FP32, by the plain APIs.
        harness_speedup: Likewise, by this harness; None where it was not asked or could not.
        quality: Of its answers by the plain API; None where they cannot be compared.
        reason: Why figures are absent; None when all are there.
    """

    name: str
    maker: str
    runtime: str | None = None
    size_bytes: Count | None = None
    build_s: Figure | None = None
    p50_ms: Figure | None = None
    speedup: SpeedRatio | None = None
    harness_speedup: SpeedRatio | None = None
    quality: Quality | None = None
    reason: str | None = None


class ModelResult(Record, kw_only=True):
    """All rows of one model.

    Attributes:
        model: Its name.
        has_meaning: Whether its weights are trained, so that agreement and accuracy say something.
        samples: That were given to calibrate on.
        held_out: That judged.
        effort: Launches, rounds and seconds of a window.
        revision: Of this repository, when it ran.
        rows: Ours, then the peers'.
    """

    model: str
    has_meaning: bool
    samples: Count
    held_out: Count
    effort: str
    revision: str
    rows: tuple[Row, ...]


class Contest(Record, kw_only=True):
    """A file of results.

    Attributes:
        machine: That it ran on.
        versions: Package -> version, of the runtimes and of the peers.
        created: ISO 8601, UTC.
        models: One each.
    """

    machine: str
    versions: dict[str, str]
    created: str
    models: tuple[ModelResult, ...]


def show(result: ModelResult) -> str:
    """Returns a Markdown table, the fastest first; what has no figures comes last, with its reason."""
    measured = [row for row in result.rows if row.speedup is not None]
    measured.sort(key=lambda row: row.speedup.ratio if row.speedup else 0.0, reverse=True)
    absent = [row for row in result.rows if row.speedup is None]
    head = ["file", "runtime", "speed-up", "95 %", "by the harness", "MB"]
    head += ["agreement", "accuracy"] if result.has_meaning else ["cosine"]
    lines = [_line(head), _line(["---", "---", *["---:"] * (len(head) - 2)])]
    lines += [_line(list(_cells(row, has_meaning=result.has_meaning))) for row in measured]
    text = "\n".join(lines)
    if absent:
        text += "\n\nWithout figures:\n\n" + "\n".join(f"- {row.name}: {row.reason}" for row in absent)
    return text


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(row: Row, *, has_meaning: bool) -> Iterator[str]:
    assert row.speedup is not None
    yield f"**{row.name}**" if row.maker == OURS else row.name
    yield row.runtime or ""
    yield f"{row.speedup.ratio:.2f}"
    yield "" if row.speedup.ci95 is None else "{:.2f} to {:.2f}".format(*row.speedup.ci95)
    yield "" if row.harness_speedup is None else f"{row.harness_speedup.ratio:.2f}"
    yield "" if row.size_bytes is None else f"{row.size_bytes / 1e6:.2f}"
    if not has_meaning:
        yield "" if row.quality is None else f"{row.quality.cosine:.4f}"
        return
    yield "" if row.quality is None else f"{100 * row.quality.agreement:.1f} %"
    yield "" if row.quality is None or row.quality.accuracy is None else f"{100 * row.quality.accuracy:.1f} %"


def find_leaders(result: ModelResult) -> list[str]:
    """Returns a line for each peer's file that no file of ours on its runtime beats or equals.

    Ours must agree at least as well and be at most 2 % slower, which no user could tell.
    """
    leaders = []
    for row in result.rows:
        if row.maker == OURS or row.speedup is None or row.quality is None:
            continue
        if not any(_is_as_good(own, row) for own in result.rows if own.maker == OURS and own.runtime == row.runtime):
            share = 100 * row.quality.agreement
            leaders.append(f"{row.name} ({row.runtime}): {row.speedup.ratio:.2f} at {share:.1f} %")
    return leaders


def _is_as_good(own: Row, other: Row) -> bool:
    if own.speedup is None or own.quality is None or other.speedup is None or other.quality is None:
        return False
    return own.quality.agreeing >= other.quality.agreeing and own.speedup.ratio * SAME_SPEED >= other.speedup.ratio
