"""What a contest found, typed and kept as JSON; who leads."""

from __future__ import annotations

from pathlib import Path

from contest.entrants import OURS
from contest.quality import Quality

from modelwright.core.files import write_json
from modelwright.core.records.codec import Count, Record, encode, read_record
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
        created: ISO 8601, UTC.
        versions: Package -> version, of the runtimes and of the peers.
        rows: Ours, then the peers'.
    """

    model: str
    has_meaning: bool
    samples: Count
    held_out: Count
    effort: str
    revision: str
    created: str
    versions: dict[str, str]
    rows: tuple[Row, ...]


class Contest(Record, kw_only=True):
    """A file of results.

    Attributes:
        machine: That all ran on, one thread each.
        models: One each.
    """

    machine: str
    models: tuple[ModelResult, ...]


def keep_result(path: Path, machine: str, result: ModelResult) -> Contest:
    """Writes a model's result into a file, in the place of an earlier one of the same model; returns all there.

    Args:
        path: JSON; need not be there.
        machine: That it ran on; a file of another machine is begun anew.
        result: Of one model.
    """
    others: tuple[ModelResult, ...] = ()
    if path.exists():
        before = read_record(Contest, path, what="results of a contest")
        others = before.models if before.machine == machine else ()
    models = [result if one.model == result.model else one for one in others]
    if result not in models:
        models.append(result)
    contest = Contest(machine=machine, models=tuple(models))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, encode(contest))
    return contest


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
