"""Rows of a comparison, made of manifests, turns and meters. What was not measured is null, with its reason."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from msgspec.structs import replace

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.path_names import drop_folders
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import LanguageArtifact, PromptSet, Texts
from modelwright.harness.language.choices import Chosen
from modelwright.harness.language.limits import LossError
from modelwright.harness.language.measuring import Measured, Measurements
from modelwright.harness.language.record import (
    FirstToken,
    LanguageComparison,
    LanguageRow,
    LanguageSettings,
    Offline,
    Turn,
)
from modelwright.harness.language.runner import GenerationWindow
from modelwright.harness.language.verdict import judge
from modelwright.harness.meters.energy import Energy, estimate_carbon
from modelwright.harness.meters.host_energy import describe_measured
from modelwright.harness.meters.power_model import estimate_energy
from modelwright.harness.results.assemble import describe_environment
from modelwright.harness.results.record import Executed, Memory
from modelwright.harness.results.statistics import (
    SpeedRatio,
    count_effective,
    estimate_ratio,
    round_log_ratios,
    summarize_latencies,
)
from modelwright.harness.run.effort import Effort
from modelwright.profiles.grid import GridRegion
from modelwright.profiles.power import power_on
from modelwright.profiles.schema import Profile
from modelwright.targets.language.table import get_target

_Take = Callable[[GenerationWindow], float | None]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What all rows share.

    Attributes:
        baseline: Name of the row that ratios are over.
        profile: The machine the numbers are for.
        host: The machine they were taken on.
        region: Of the grid, for carbon.
        threads: Of every runtime.
        batch: Prompts at once in the offline part; 1 for none.
        effort: Launches and rounds.
        seed: Of the order of turns.
        settings: Target -> settings of its runtime.
        max_increase: What perplexity may grow by, as a share; None for no limit.
    """

    baseline: str
    profile: Profile
    host: Profile
    region: GridRegion
    threads: int
    batch: int
    effort: Effort
    seed: int
    settings: Chosen
    max_increase: float | None = None


def assemble_language(
    context: Context,
    *,
    model: LanguageModel,
    texts: Texts,
    asked: PromptSet,
    artifacts: Mapping[str, LanguageArtifact],
    reused: Mapping[str, bool],
    measurements: Measurements,
    absent: Sequence[LanguageRow] = (),
    warnings: Sequence[str] = (),
) -> LanguageComparison:
    """Returns the judged comparison.

    Args:
        context: What all rows share.
        model: The FP32 model.
        texts: That calibrated, tuned and judged.
        asked: What was generated from.
        artifacts: By the names of their rows.
        reused: Which of them were there from an earlier run.
        measurements: Of this run.
        absent: Rows of what could not be built.
        warnings: What was noticed on the way.
    """
    rows = [
        describe_row(context, name, artifact, measurements, reused=reused.get(name, False))
        for name, artifact in artifacts.items()
    ]
    source = replace(model.source, path=drop_folders(model.source.path))
    return judge(
        LanguageComparison(
            run_id=uuid.uuid4().hex[:12],
            timestamp=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            model=replace(model, source=source),
            texts=texts,
            environment=describe_environment(context.host),
            profile=context.profile.name,
            baseline=context.baseline,
            settings=LanguageSettings(
                threads=context.threads,
                new_tokens=asked.new_tokens,
                prompts=len(asked.prompts),
                batch=context.batch,
                seed=context.seed,
                effort=context.effort.name,
                launches=context.effort.launches,
                rounds=context.effort.total_rounds,
                options={name: dict(options) for name, options in context.settings.items()},
            ),
            max_perplexity_increase=context.max_increase,
            warnings=(*model.notes, *warnings),
            rows=(*rows, *absent),
        )
    )


def describe_absent(target: str, status: Literal["skipped", "failed"], error: ModelwrightError) -> LanguageRow:
    """Returns the row of a target without figures; one that loses too much has those of its quality."""
    record = get_target(target).record
    return LanguageRow(
        target=target,
        title=record.title,
        runtime=record.runtime,
        precision=record.precision,
        is_float=record.is_float,
        status=status,
        reason=error.message,
        hint=error.hint,
        detail=error.detail,
        exit_code=error.exit_code,
        quality=error.proof if isinstance(error, LossError) else None,
    )


def describe_row(
    context: Context, name: str, artifact: LanguageArtifact, measurements: Measurements, *, reused: bool
) -> LanguageRow:
    """Returns the row of an artifact that was to be measured."""
    measured, manifest = measurements.by_name[name], artifact.manifest
    if measured.failure is not None or measured.opened is None or not measured.windows:
        failure = measured.failure or MeasurementInvalidError(f"{name} was not loaded")
        absent = describe_absent(manifest.target, "failed", failure)
        return replace(absent, target=name, quality=manifest.proof)
    record, opened, finished = get_target(manifest.target).record, measured.opened, measured.finished
    windows = [window for _, window in sorted(measured.windows.items())]
    token_ms, reasons = summarize_latencies([window.latencies_ms for window in windows])
    unavailable = {f"token_ms.{key}": _ask_for_more(reason, "tokens") for key, reason in reasons.items()}
    first_ms, reasons = summarize_latencies([[window.first_ms] for window in windows])
    unavailable |= {f"first_token_ms.{key}": _ask_for_more(reason, "answers") for key, reason in reasons.items()}
    answer_ms, reasons = summarize_latencies([[window.total_ms] for window in windows])
    unavailable |= {f"answer_ms.{key}": _ask_for_more(reason, "answers") for key, reason in reasons.items()}
    tokens, elapsed_s = sum(len(window.tokens) for window in windows), sum(window.total_ms for window in windows) / 1e3
    energy = _describe_energy(context, measured, measurements, elapsed_s * 1e3 / tokens)
    if energy.per_inference_j is None:
        unavailable["energy"] = str(energy.reason)
    else:
        energy = replace(energy, total_j=energy.per_inference_j * tokens)
    if finished is not None and finished.peak_memory_bytes is None:
        unavailable["peak_memory_bytes"] = "this system has no /proc, which tells it"
    if finished is not None and finished.cache_bytes is None:
        unavailable["cache_bytes"] = f"{record.title} does not tell it"
    if context.batch == 1:
        unavailable["offline"] = "one prompt at a time was asked for; --batch 4 answers four at once"
    base = measurements.by_name.get(context.baseline)
    speedups = _Speedups(name, context.baseline, measured, base)
    if speedups.per_token is None:
        unavailable["speedup"] = speedups.reason
    return LanguageRow(
        target=name,
        title=record.title,
        runtime=record.runtime,
        precision=record.precision,
        is_float=record.is_float,
        status="measured",
        size_bytes=manifest.size_bytes,
        build_s=manifest.build_s,
        reused=reused,
        import_ms=opened.import_ms,
        load_ms=opened.load_ms,
        first_generation_ms=opened.first_generation_ms,
        token_ms=token_ms,
        num_tokens=sum(len(window.latencies_ms) for window in windows),
        effective_tokens=round(count_effective([window.latencies_ms for window in windows]), 1),
        tokens_per_s=tokens / elapsed_s,
        first_token_ms=first_ms,
        openings=_describe_openings(windows),
        answer_ms=answer_ms,
        prompts_per_s=len(windows) / elapsed_s,
        offline=_describe_offline(windows, context.batch, speedups),
        peak_memory_bytes=finished.peak_memory_bytes if finished else None,
        memory=_describe_memory(opened.runtime_bytes, finished.steady_memory_bytes if finished else None),
        cache_bytes=finished.cache_bytes if finished else None,
        energy=energy,
        carbon=estimate_carbon(energy, context.region),
        speedup=speedups.per_token,
        answer_speedup=speedups.of(_total_ms),
        first_speedup=speedups.of(_first_ms),
        turns=tuple(_describe_turn(index, window) for index, window in sorted(measured.windows.items())),
        quality=manifest.proof,
        precision_executed=finished.precision_executed if finished else Executed(),
        recipe=dict(manifest.recipe),
        notes=manifest.notes,
        unavailable=unavailable,
    )


def _ask_for_more(reason: str, unit: str) -> str:
    """Returns why a percentile is not told, in the words of what is generated here."""
    more = reason.replace("independent inferences", f"independent {unit}")
    return (
        more.replace("a higher --effort gives", "a higher --effort or more --new-tokens give")
        if unit == "tokens"
        else more
    )


class _Speedups:
    """Ratios of one artifact's times to the baseline's in the same rounds."""

    def __init__(self, name: str, baseline: str, measured: Measured, base: Measured | None) -> None:
        self._is_baseline = name == baseline
        self._own = measured.windows
        self._base = {} if base is None else base.windows
        self.reason = (
            f"{baseline} and {name} share fewer than 5 rounds of a launch"
            if self._base
            else f"the baseline {baseline} was not measured"
        )
        self.per_token = self._estimate(_list_steps(self._base), _list_steps(self._own))

    def of(self, take: _Take) -> SpeedRatio | None:
        """Returns the ratio of one time a turn."""
        base = {index: [value] for index, window in self._base.items() if (value := take(window)) is not None}
        own = {index: [value] for index, window in self._own.items() if (value := take(window)) is not None}
        return self._estimate(base, own)

    def _estimate(self, base: Mapping[int, Sequence[float]], own: Mapping[int, Sequence[float]]) -> SpeedRatio | None:
        if self._is_baseline:
            return SpeedRatio(ratio=1.0, ci95=(1.0, 1.0)) if own else None
        launches = {index: window.launch for index, window in self._own.items()}
        return estimate_ratio(round_log_ratios(base, own), launches)


def _list_steps(windows: Mapping[int, GenerationWindow]) -> dict[int, Sequence[float]]:
    return {index: window.latencies_ms for index, window in windows.items()}


def _first_ms(window: GenerationWindow) -> float | None:
    return window.first_ms


def _total_ms(window: GenerationWindow) -> float | None:
    return window.total_ms


def _batch_ms(window: GenerationWindow) -> float | None:
    return None if window.batch is None else window.batch.total_ns / 1e6


def _describe_openings(windows: Sequence[GenerationWindow]) -> tuple[FirstToken, ...]:
    """Returns the time to the first token for each length of prompt, the shortest first."""
    by_length: dict[int, list[list[float]]] = {}
    for window in windows:
        if window.opening is not None:
            by_length.setdefault(window.opening.prompt_tokens, []).append([window.opening.first_ns / 1e6])
    return tuple(
        FirstToken(prompt_tokens=length, count=len(times), latency_ms=summarize_latencies(times)[0])
        for length, times in sorted(by_length.items())
    )


def _describe_offline(windows: Sequence[GenerationWindow], batch: int, speedups: _Speedups) -> Offline | None:
    batches = [window.batch for window in windows if window.batch is not None]
    if not batches:
        return None
    elapsed_s = sum(each.total_ns for each in batches) / 1e9
    return Offline(
        batch=batch,
        prompts_per_s=batch * len(batches) / elapsed_s,
        tokens_per_s=sum(each.tokens for each in batches) / elapsed_s,
        speedup=speedups.of(_batch_ms),
    )


def _describe_turn(index: int, window: GenerationWindow) -> Turn:
    opening = window.opening
    return Turn(
        round=index,
        launch=window.launch,
        prompt_tokens=window.prompt_tokens,
        first_ms=window.first_ms,
        token_ms=tuple(window.latencies_ms),
        opening_tokens=None if opening is None else opening.prompt_tokens,
        opening_ms=None if opening is None else opening.first_ns / 1e6,
        batch_ms=_batch_ms(window),
    )


def _describe_memory(runtime_bytes: int | None, steady_bytes: int | None) -> Memory:
    """Tells the runtime's own share from what the model and its cache add to it."""
    both = runtime_bytes is not None and steady_bytes is not None
    return Memory(
        runtime_bytes=runtime_bytes,
        steady_bytes=steady_bytes,
        model_bytes=max(0, (steady_bytes or 0) - (runtime_bytes or 0)) if both else None,
    )


def _describe_energy(context: Context, measured: Measured, measurements: Measurements, token_ms: float) -> Energy:
    """Returns the energy of a token: metered over whole answers, or estimated for the time of one."""
    meter = measurements.meter
    if meter is not None:
        metered = [window for window in measured.windows.values() if window.energy_j is not None]
        return describe_measured(
            meter,
            sum(window.energy_j or 0.0 for window in metered),
            sum(window.inferences for window in metered),
            sum(window.elapsed_s for window in metered),
            measurements.idle_power_w,
            [power for window in metered for power in window.power],
        )
    return estimate_energy(
        power_on(context.profile, context.host),
        token_ms,
        context.profile,
        threads=context.threads,
        cores=(context.host if context.profile.is_class else context.profile).cores,
    )
