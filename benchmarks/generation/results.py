"""What a contest of language models found, typed and kept as JSON; who is ahead."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from contest.entrants import OURS

from modelwright.core.files import write_json
from modelwright.core.records.codec import Count, Record, encode, read_record
from modelwright.core.records.language_artifact import Estimate
from modelwright.harness.kinds import Figure
from modelwright.harness.results.statistics import SAME_SPEED, SpeedRatio


class Row(Record, kw_only=True):
    """One artifact, or why there is none.

    Attributes:
        name: Of the target, or of the peer's way.
        maker: `modelwright` or the distribution.
        bits: Of most weights.
        size_bytes: Of what the runtime loads; null where there is no file of its own.
        build_s: Seconds that making it took, on a machine that did other things too; null where it is made as it loads.
        token_ms: Median time of a token after the first.
        token_p95_ms: 95 of 100 are as fast; null where too few tokens support it.
        speedup: Per token, over the baseline.
        first_ms: Median time to the first token, of the prompts that are answered.
        opening_ms: Likewise, of prompts of the length that the result names.
        peak_memory_bytes: Of its process, from its start.
        perplexity: On the texts that judge; null where the runtime gives no logits, and for random weights.
        increase: What perplexity grows by against the baseline, as a share.
        agreement: Share of places where its likeliest token is the baseline's.
        note: What else is to be known of the figures.
        reason: Why figures are absent; null when all are there.
    """

    name: str
    maker: str
    bits: Count | None = None
    size_bytes: Count | None = None
    build_s: Figure | None = None
    token_ms: Figure | None = None
    token_p95_ms: Figure | None = None
    speedup: SpeedRatio | None = None
    first_ms: Figure | None = None
    opening_ms: Figure | None = None
    peak_memory_bytes: Count | None = None
    perplexity: Figure | None = None
    increase: Estimate | None = None
    agreement: Estimate | None = None
    note: str = ""
    reason: str | None = None


class Export(Record, kw_only=True):
    """What exporting the model took.

    Attributes:
        took_s: Seconds.
        weights_bytes: Of all parameters in FP32.
        peak_memory_bytes: Of the largest of its processes.
        low_memory: Whether `--low-memory` was given.
    """

    took_s: Figure
    weights_bytes: Count
    peak_memory_bytes: Count
    low_memory: bool


class Exports(Record, kw_only=True):
    """What exporting a model took, kept beside the export: artifacts are then built from it."""

    exports: tuple[Export, ...]


class ModelResult(Record, kw_only=True):
    """All rows of one model.

    Attributes:
        model: Its name.
        parameters: How many it has.
        baseline: FP32, that speed-ups are over and perplexity is held against.
        has_meaning: Whether its weights are trained, so that perplexity says something.
        threads: Of every runtime.
        new_tokens: Of each answer.
        opening_tokens: Of the prompts whose first token alone is timed.
        judged_tokens: Predicted ones, on which perplexity is.
        effort: Launches and rounds.
        revision: Of this repository, when it ran.
        created: ISO 8601, UTC.
        versions: Package -> version, of the runtimes and of the peers.
        exports: What exporting took; empty where that was not measured.
        rows: Ours, then the peers'.
    """

    model: str
    parameters: Count
    baseline: str
    has_meaning: bool
    threads: Count
    new_tokens: Count
    opening_tokens: Count
    judged_tokens: Count
    effort: str
    revision: str
    created: str
    versions: dict[str, str]
    exports: tuple[Export, ...] = ()
    rows: tuple[Row, ...]


class Contest(Record, kw_only=True):
    """A file of results.

    Attributes:
        machine: That all ran on.
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
    before = read_record(Contest, path, what="results of a contest") if path.exists() else None
    others = before.models if before is not None and before.machine == machine else ()
    models = [result if one.model == result.model else one for one in others]
    if result not in models:
        models.append(result)
    contest = Contest(machine=machine, models=tuple(models))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, encode(contest))
    return contest


def find_leaders(result: ModelResult) -> Iterator[str]:
    """Yields a line for each peer's artifact that is ahead of one of ours on both, speed and perplexity.

    Artifacts of as many bits are held against each other. A peer's leads where it is faster than one of ours by more
    than 2 %, which a user could tell, at no higher perplexity, and no other one of ours of as many bits does as well.
    """
    for row in result.rows:
        if row.maker == OURS or row.speedup is None or row.perplexity is None:
            continue
        own = [one for one in result.rows if one.maker == OURS and one.bits == row.bits]
        behind = [one.name for one in own if _is_ahead(row, one)]
        if behind and not any(_is_as_good(one, row) for one in own):
            yield f"{row.name} of {', '.join(behind)}"


def _is_ahead(row: Row, other: Row) -> bool:
    if row.speedup is None or other.speedup is None or row.perplexity is None or other.perplexity is None:
        return False
    return row.speedup.ratio > other.speedup.ratio * SAME_SPEED and row.perplexity <= other.perplexity


def _is_as_good(row: Row, other: Row) -> bool:
    if row.speedup is None or other.speedup is None or row.perplexity is None or other.perplexity is None:
        return False
    return row.speedup.ratio * SAME_SPEED >= other.speedup.ratio and row.perplexity <= other.perplexity
