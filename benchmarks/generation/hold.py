"""One language model's contest: ours built, the peers' made, all scored, all run together, and a row for each."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import cast

import numpy as np
from contest.entrants import OURS, Missing
from contest.line_process import LoopFailedError
from contest.turns import take_turns
from generation.entrants import Entrant, enter_own
from generation.loops import GenerationLoop, Task, score_entrant, take_openings_ms
from generation.models import PreparedLanguage
from generation.peers import PEERS, LanguagePeer, find_peer_version, run_language_peer
from generation.quality import Scores, write_windows
from generation.results import ModelResult, Row
from msgspec.structs import replace
from revision import find_revision

from modelwright.cli.printing import close_progress, open_progress
from modelwright.harness.language.comparing import LanguageBuilt, build_language
from modelwright.harness.language.request import make_language_request
from modelwright.harness.language.runner import GenerationWindow
from modelwright.harness.results.statistics import SpeedRatio, estimate_ratio, round_log_ratios, summarize_latencies
from modelwright.harness.run.effort import Effort
from modelwright.targets.readiness import package_versions

OPENING_TOKENS = 128
LEFT_OUT = "left out of this run"
RUNTIME_PACKAGES = ("onnxruntime", "openvino", "ai-edge-litert", "torch", "transformers")
Windows = Mapping[str, dict[int, GenerationWindow]]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What a contest is to do.

    Attributes:
        peers: That take part.
        cache: Folder for environments, models and artifacts.
        effort: Launches and rounds.
        threads: Of every runtime.
        new_tokens: Of each answer.
    """

    peers: Sequence[LanguagePeer]
    cache: Path
    effort: Effort
    threads: int
    new_tokens: int


@dataclass(frozen=True, kw_only=True)
class Entered:
    """What can be measured, and what of it is known already.

    Attributes:
        built: Ours.
        entrants: Ours, then the peers'.
        missing: What could not be built, and why.
    """

    built: LanguageBuilt
    entrants: Sequence[Entrant]
    missing: Sequence[Missing]


def enter_all(prepared: PreparedLanguage, plan: Plan) -> Entered:
    """Builds all artifacts of one model; those of an earlier run are taken as they are."""
    work = plan.cache / "work" / prepared.name
    built = _build_ours(prepared, plan, work / "ours")
    entrants = list(enter_own(built.artifacts))
    missing = [Missing(name=row.target, maker=OURS, reason=row.reason or "") for row in built.absent]
    for peer in plan.peers:
        _tell(f"{prepared.name}: {peer.name}")
        made = run_language_peer(
            peer, prepared.folder, built.model.source.sha256, work / "peers", plan.cache / "environments"
        )
        if isinstance(made, Missing):
            missing.append(made)
        else:
            entrants.append(made)
    left_out = [peer for peer in PEERS if peer not in plan.peers]
    missing += [Missing(name=peer.name, maker=peer.maker, reason=LEFT_OUT) for peer in left_out]
    return Entered(built=built, entrants=entrants, missing=missing)


def score_all(
    prepared: PreparedLanguage, entered: Entered, plan: Plan, failures: dict[str, str]
) -> Mapping[str, Scores]:
    """Returns what the texts cost each artifact; nothing for random weights, which mean nothing.

    Args:
        prepared: The model.
        entered: Its artifacts.
        plan: With the folder of earlier scores, which hold as long as artifact, code and texts are the same.
        failures: Gets a name and why it gave none.
    """
    scores: dict[str, Scores] = {}
    with tempfile.TemporaryDirectory() as scratch:
        task = _make_task(entered.built, plan, Path(scratch))
        for entrant in entered.entrants if prepared.has_meaning else ():
            _tell(f"{entrant.name} reads the texts that judge")
            try:
                kept = plan.cache / "work" / prepared.name / "scores"
                scores[entrant.name] = score_entrant(entrant, task, Path(scratch), kept)
            except LoopFailedError as error:
                failures[entrant.name] = str(error)
    return scores


def hold_contest(prepared: PreparedLanguage, plan: Plan) -> ModelResult:
    """Builds, scores and measures all artifacts of one model."""
    entered = enter_all(prepared, plan)
    built, entrants = entered.built, entered.entrants
    failures: dict[str, str] = {}
    peaks: dict[str, int] = {}
    scores = score_all(prepared, entered, plan, failures)
    with tempfile.TemporaryDirectory() as scratch:
        task = _make_task(built, plan, Path(scratch))
        windows = _run_all(entrants, task, plan.effort, Path(scratch), peaks, failures)
    rows = [
        _make_row(entrant, windows, scores, prepared.baseline, peaks.get(entrant.name), failures.get(entrant.name))
        for entrant in entrants
    ]
    rows += [Row(name=one.name, maker=one.maker, reason=one.reason) for one in entered.missing]
    return ModelResult(
        model=prepared.name,
        parameters=built.model.num_parameters,
        baseline=prepared.baseline,
        has_meaning=prepared.has_meaning,
        threads=plan.threads,
        new_tokens=plan.new_tokens,
        opening_tokens=len(task.openings[0]) if task.openings else 0,
        judged_tokens=sum(len(document.tokens) - 1 for document in built.workload.evaluation),
        effort=f"{plan.effort.launches} launches of {plan.effort.rounds} rounds, an answer each",
        revision=find_revision(),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        versions={
            **package_versions(*RUNTIME_PACKAGES),
            **{peer.maker: find_peer_version(peer) for peer in plan.peers},
        },
        rows=tuple(rows),
    )


def _build_ours(prepared: PreparedLanguage, plan: Plan, out: Path) -> LanguageBuilt:
    request = make_language_request(
        prepared.folder,
        samples=prepared.samples,
        evaluation=prepared.judging,
        targets=prepared.targets,
        baseline=prepared.baseline,
        threads=plan.threads,
        new_tokens=plan.new_tokens,
        lengths=(OPENING_TOKENS,),
        evaluation_tokens=prepared.evaluation_tokens,
        overwrite=True,
        low_memory=prepared.low_memory,
    )
    progress = open_progress()
    try:
        return build_language(request, out, progress)
    finally:
        close_progress(progress)


def _make_task(built: LanguageBuilt, plan: Plan, scratch: Path) -> Task:
    asked, windows = built.workload.asked, scratch / "windows.json"
    return Task(
        prompts=[list(prompt) for prompt in asked.prompts],
        openings=[list(opening) for opening in asked.openings],
        new_tokens=plan.new_tokens,
        threads=plan.threads,
        windows=windows,
        windows_sha256=write_windows(built.workload.evaluation, built.model.context_length, windows),
    )


def _run_all(
    entrants: Sequence[Entrant],
    task: Task,
    effort: Effort,
    scratch: Path,
    peaks: dict[str, int],
    failures: dict[str, str],
) -> Windows:
    by_name = {entrant.name: entrant for entrant in entrants if entrant.name not in failures}

    def keep_peak(launch: int, loop: GenerationLoop) -> None:
        if launch == 0:
            peaks[loop.name] = loop.read_peak_bytes()

    windows = take_turns(
        list(by_name), effort, on_finished=keep_peak, on_failure=failures.__setitem__, tell=_tell,
        open_loop=lambda name: GenerationLoop(by_name[name], task, scratch),
    )  # fmt: skip
    return cast("Windows", windows)


def _make_row(
    entrant: Entrant,
    windows: Windows,
    scores: Mapping[str, Scores],
    baseline: str,
    peak_bytes: int | None,
    failure: str | None,
) -> Row:
    row = Row(
        name=entrant.name,
        maker=entrant.maker,
        bits=entrant.bits,
        size_bytes=entrant.size_bytes,
        build_s=None if entrant.build_s is None else round(entrant.build_s, 1),
        peak_memory_bytes=peak_bytes,
        note=entrant.note,
        reason=failure,
    )
    figures: dict[str, object] = {}
    found, reference = scores.get(entrant.name), scores.get(baseline)
    if found is not None and reference is not None:
        figures |= {
            "perplexity": found.perplexity,
            "increase": found.increase_over(reference),
            "agreement": found.agreement_with(reference),
        }
    turns = windows.get(entrant.name)
    if turns:
        latency, _ = summarize_latencies([window.latencies_ms for window in turns.values()])
        openings = take_openings_ms(turns)
        figures |= {
            "token_ms": latency.typical,
            "token_p95_ms": latency.p95,
            "first_ms": float(np.median([window.first_ms for window in turns.values()])),
            "opening_ms": float(np.median(openings)) if openings else None,
            "speedup": _relate(windows, entrant.name, baseline),
        }
    return replace(row, **figures)


def _relate(windows: Windows, name: str, baseline: str) -> SpeedRatio | None:
    if baseline not in windows:
        return None
    rounds = [{index: one.latencies_ms for index, one in windows[each].items()} for each in (baseline, name)]
    return estimate_ratio(round_log_ratios(*rounds), {index: one.launch for index, one in windows[baseline].items()})


def _tell(text: str) -> None:
    print(text, flush=True)
