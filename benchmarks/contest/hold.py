"""One model's contest: ours built, the peers' made, all run together, and a row for each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from contest.adopt import adopt
from contest.entrants import OURS, Entrant, Missing, enter_own
from contest.loops import run_loops
from contest.peers import PEERS, Peer, find_version, run_peer
from contest.quality import judge_if_comparable
from contest.results import ModelResult, Row
from models.catalog import Prepared
from revision import find_revision

from modelwright.cli.printing import close_progress, open_progress
from modelwright.core.records.artifact import Artifact
from modelwright.harness.building import build_targets
from modelwright.harness.results.statistics import SpeedRatio, estimate_ratio, round_log_ratios, summarize_latencies
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window
from modelwright.harness.run.measure_artifacts import measure_artifacts
from modelwright.harness.run.runner import MeasureSettings
from modelwright.profiles import detect_host
from modelwright.targets.readiness import package_versions

TARGETS = (
    "ort-fp32", "ort-int8", "ort-int8-dynamic", "openvino-fp32", "openvino-bf16", "openvino-int8",
    "tflite-fp32", "tflite-int8", "tflite-int8-dynamic",
)  # fmt: skip
BASELINE = "ort-fp32"
RUNTIME_PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert")
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a contest is to do.

    Attributes:
        peers: That take part.
        cache: Folder for environments, models and files.
        effort: Launches, rounds and windows.
        judged: How many held-out samples count, at most: the first.
        fresh: Build ours again.
        by_harness: Measure with this harness too.
    """

    peers: Sequence[Peer]
    cache: Path
    effort: Effort
    judged: int
    fresh: bool
    by_harness: bool


def hold_contest(prepared: Prepared, plan: Plan) -> ModelResult:
    """Builds, measures and judges all files of one model."""
    work = plan.cache / "work" / prepared.name
    artifacts, missing = _build_ours(prepared, work / "ours", fresh=plan.fresh)
    entrants = list(enter_own(artifacts))
    for peer in PEERS:
        if peer not in plan.peers:
            missing.append(Missing(name=peer.name, maker=peer.maker, reason="left out of this run"))
            continue
        print(f"{prepared.name}: {peer.name}", flush=True)
        folder = work / "peers" / "".join(c if c.isalnum() else "-" for c in peer.name)
        made = run_peer(
            peer, prepared.model, prepared.samples, folder, plan.cache / "environments",
            has_labels=prepared.labels is not None,
        )  # fmt: skip
        if isinstance(made, Missing):
            missing.append(made)
        else:
            entrants.append(made)
    answers: dict[str, list[Floats]] = {}
    failures: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch:
        windows = run_loops(
            entrants, prepared.held_out, Path(scratch), plan.effort, judged=plan.judged,
            on_answers=answers.__setitem__, on_failure=failures.__setitem__, tell=_tell,
        )  # fmt: skip
        harness = _measure_by_harness(entrants, artifacts, Path(scratch), plan.effort) if plan.by_harness else {}
    rows = [
        Row(
            name=entrant.name,
            maker=entrant.maker,
            runtime=entrant.runtime,
            size_bytes=entrant.size_bytes,
            build_s=round(entrant.build_s, 1),
            p50_ms=_median_ms(windows.get(entrant.name)),
            speedup=_relate(windows, entrant.name),
            harness_speedup=_relate(harness, entrant.name),
            quality=judge_if_comparable(answers.get(entrant.name), answers[BASELINE], prepared.labels),
            reason=failures.get(entrant.name),
        )
        for entrant in entrants
    ]
    rows += [Row(name=one.name, maker=one.maker, reason=one.reason) for one in missing]
    return ModelResult(
        model=prepared.name,
        has_meaning=prepared.labels is not None,
        samples=prepared.sample_count,
        held_out=len(answers[BASELINE][0]),
        effort=f"{plan.effort.launches} launches of {plan.effort.rounds} rounds, windows of {plan.effort.window_s} s",
        revision=find_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            **package_versions(*RUNTIME_PACKAGES),
            **{peer.maker: find_version(peer.module, peer.maker) for peer in plan.peers},
        },
        rows=tuple(rows),
    )


def _build_ours(prepared: Prepared, out: Path, *, fresh: bool) -> tuple[dict[str, Artifact], list[Missing]]:
    if fresh:
        shutil.rmtree(out, ignore_errors=True)
    progress = open_progress()
    try:
        built = build_targets(
            prepared.model,
            samples=prepared.samples,
            evaluation=prepared.held_out,
            out=out,
            targets=TARGETS,
            overwrite=True,
            progress=progress,
        )
    finally:
        close_progress(progress)
    absent = [Missing(name=one.target, maker=OURS, reason=one.error.message) for one in built.absent]
    return built.artifacts, absent


def _measure_by_harness(
    entrants: Sequence[Entrant], artifacts: Mapping[str, Artifact], scratch: Path, effort: Effort
) -> dict[str, dict[int, Window]]:
    """Returns the windows of all that the harness could load, by name."""
    taking_part: dict[str, Artifact] = {}
    for place, entrant in enumerate(entrants):
        own = artifacts.get(entrant.name) if entrant.maker == OURS else None
        artifact = own or adopt(entrant, artifacts, scratch / f"adopted-{place}")
        if artifact is not None:
            taking_part[entrant.name] = artifact
    host = detect_host()
    settings = MeasureSettings(effort=effort)
    measured = measure_artifacts(taking_part, settings, host, host, samples=None, on_event=_tell).by_name
    for name, result in measured.items():
        if result.failure is not None:
            _tell(f"the harness leaves out {name}: {result.failure.message}")
    return {name: result.windows for name, result in measured.items() if result.failure is None}


def _relate(windows: Mapping[str, Mapping[int, Window]], name: str) -> SpeedRatio | None:
    if name not in windows or BASELINE not in windows:
        return None
    rounds = [{index: one.latencies_ms for index, one in windows[each].items()} for each in (BASELINE, name)]
    launches = {index: window.launch for index, window in windows[BASELINE].items()}
    return estimate_ratio(round_log_ratios(*rounds), launches)


def _median_ms(windows: Mapping[int, Window] | None) -> float | None:
    if not windows:
        return None
    latency, _ = summarize_latencies([window.latencies_ms for window in windows.values()])
    return latency.typical


def _tell(text: str) -> None:
    print(text, flush=True)
