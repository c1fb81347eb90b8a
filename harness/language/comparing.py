"""From a transformers folder to a comparison: export, tokenize, build, judge, measure in turns, say which to ship."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.core.errors import (
    BadInputError,
    LimitNotMetError,
    MeasurementInvalidError,
    ToolchainMissingError,
)
from modelwright.core.faults import as_error
from modelwright.core.files import require_writable, write_json
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import encode
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import LanguageArtifact
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.language import export_language, write_folder
from modelwright.exporters.language.source import is_gguf, is_pickled
from modelwright.harness.claimed import claimed_folder, spell_source
from modelwright.harness.formatting import count_noun, format_bytes, join_words
from modelwright.harness.language.assembling import Context, assemble_language, describe_absent
from modelwright.harness.language.bench import Bench
from modelwright.harness.language.build_worker import read_workload
from modelwright.harness.language.building import build
from modelwright.harness.language.choices import describe_targets
from modelwright.harness.language.limits import describe_increase
from modelwright.harness.language.measuring import measure_language_artifacts
from modelwright.harness.language.record import LanguageComparison, LanguageRow
from modelwright.harness.language.request import LanguageRequest
from modelwright.harness.language.runner import Generating
from modelwright.harness.language.workload import TOKENIZING_LIMIT_S, Wanted, Workload
from modelwright.harness.language.writing import PAGE, RESULTS, TABLE, write_language_comparison
from modelwright.harness.progress import Progress, Undisturbed


@dataclass(kw_only=True)
class LanguageBuilt:
    """What came of building.

    Attributes:
        model: The exported model.
        workload: All tokens that they were built from and judged by.
        artifacts: By target.
        reused: Which of them were there already.
        absent: Rows of what is missing, with their reasons.
    """

    model: LanguageModel
    workload: Workload
    artifacts: dict[str, LanguageArtifact] = field(default_factory=dict)
    reused: dict[str, bool] = field(default_factory=dict)
    absent: list[LanguageRow] = field(default_factory=list)


def compare_language(request: LanguageRequest, out: str | Path, progress: Progress | None = None) -> LanguageComparison:
    """Builds targets of one language model, measures them side by side and writes the comparison.

    Args:
        request: What is to be compared, and how.
        out: A folder: `artifacts/TARGET/`, `model/`, `results.json`, `results.csv`, `report.html`.
        progress: Told what is going on.

    Returns:
        What `results.json` holds.

    Raises:
        BadInputError: The folder, the texts or `out` cannot be used.
        ToolchainMissingError: The baseline cannot be built or run here.
        BuildFailedError: The export does not follow the source, or no target could be built.
        MeasurementInvalidError: The profile is of another machine, or nothing could be measured.
    """
    folder, tell = Path(out), Undisturbed(progress)
    with claimed_folder(folder, spell_source(request.source), overwrite=request.overwrite):
        for name in (RESULTS, TABLE, PAGE):
            require_writable(folder / name)
        with scratch_directory(folder) as scratch:
            bench = _prepare(request, folder / "model", Path(scratch), tell)
            built = _build_all(request, bench, folder / "artifacts", tell, overwrite=True)
            prompts = Path(scratch) / "prompts.json"
            write_json(prompts, encode(built.workload.asked))
            tell.start("measure", f"{count_noun(len(built.artifacts), 'artifact')} generating in turns")
            measurements = measure_language_artifacts(
                built.artifacts,
                Generating(
                    prompts=prompts, threads=request.threads, batch=request.batch, options=dict(request.settings)
                ),
                request.effort,
                request.profile,
                request.host,
                seed=request.seed,
                on_round=lambda done, total: tell.advance("measure", done, total),
                on_event=lambda text: tell.say("measure", text),
            )
        comparison = assemble_language(
            _describe_context(request),
            model=built.model,
            texts=built.workload.described,
            asked=built.workload.asked,
            artifacts=built.artifacts,
            reused=built.reused,
            measurements=measurements,
            absent=built.absent,
        )
        measured = len(comparison.measured)
        tell.finish("measure", f"{count_noun(measured, 'artifact')} measured", ok=measured > 0)
        faults = write_language_comparison(folder, comparison)
        if faults:
            raise faults[0]
    if not measured:
        reasons = "; ".join(f"{row.target}: {row.reason}" for row in comparison.rows)
        raise MeasurementInvalidError(f"nothing could be measured: {reasons}", hint=f"see {folder / RESULTS}")
    return comparison


def build_language(request: LanguageRequest, out: str | Path, progress: Progress | None = None) -> LanguageBuilt:
    """Builds artifacts into `out/TARGET`, and the verified model into `out/model`.

    Args:
        request: What is to be built; the baseline is, too, since all others are held against it.
        out: A folder.
        progress: Told what is going on.

    Raises:
        As `compare_language`, but for measuring.
    """
    folder, tell = Path(out), Undisturbed(progress)
    with made_folder(folder), locked_folder(folder), scratch_directory(folder) as scratch:
        bench = _prepare(request, folder / "model", Path(scratch), tell)
        return _build_all(request, bench, folder, tell, overwrite=request.overwrite)


def require_kept(comparison_rows: Sequence[LanguageRow], asked: Sequence[str]) -> int:
    """Returns the exit code of a run: 0, or that of what was asked for by name and is missing.

    Raises:
        LimitNotMetError: Every target but the baseline loses more than the user allows.
    """
    over = [row for row in comparison_rows if row.exit_code == LimitNotMetError.exit_code]
    others = [row for row in comparison_rows if row.measured][1:]
    if over and not others:
        raise LimitNotMetError(
            f"{join_words([row.target for row in over])} lost more than --max-perplexity-increase allows, and nothing "
            "else was measured besides the baseline",
            hint=over[0].hint,
        )
    missing = [row.exit_code or 5 for row in comparison_rows if row.target in asked and not row.measured]
    return max(missing, default=0)


def _describe_context(request: LanguageRequest) -> Context:
    return Context(
        baseline=request.baseline,
        profile=request.profile,
        host=request.host,
        region=request.region,
        threads=request.threads,
        batch=request.batch,
        effort=request.effort,
        seed=request.seed,
        settings=request.settings,
        max_increase=request.max_increase,
    )


def _prepare(request: LanguageRequest, model: Path, scratch: Path, tell: Progress) -> Bench:
    """Says what is built, exports the model, and makes tokens of the texts."""
    if not request.named:
        tell.finish("targets", describe_targets(request.targets))
    tell.start("export", f"exporting {request.source}")
    source = Path(request.source)
    if is_gguf(source) or (request.trust and is_pickled(source)):
        source = scratch / source.stem
        write_folder(request.source, source, progress=lambda text: tell.say("export", text))
    record = export_language(
        request.source,
        model,
        folder=source,
        overwrite=request.overwrite,
        fresh=request.fresh,
        low_memory=request.low_memory,
        trust=request.trust,
        progress=lambda text: tell.say("export", text),
    )
    tell.finish("export", record.summarize())
    tell.start("texts", "tokenizing texts")
    path = scratch / "workload.json"
    run_in_child(
        "modelwright.harness.language.tokenizing:prepare_in_child",
        {
            "model": str(model.absolute()),
            "samples": request.samples,
            "evaluation": request.evaluation,
            "tasks": list(request.tasks),
            "wanted": encode(
                Wanted(
                    context=record.context_length,
                    vocabulary=record.vocab_size,
                    new_tokens=request.new_tokens,
                    lengths=request.lengths,
                    texts=request.evaluation_limit,
                    tokens=request.evaluation_tokens,
                )
            ),
            "out": str(path.absolute()),
        },
        purpose="tokenizing texts",
        crash_error=BadInputError,
        timeout_s=TOKENIZING_LIMIT_S,
        progress=lambda text: tell.say("texts", text),
    )
    workload = read_workload(path)
    tell.finish("texts", _summarize(workload))
    shared = scratch / "shared"
    shared.mkdir()
    return Bench(
        model=model,
        record=record,
        source=source,
        workload=workload,
        workload_path=path,
        reference=scratch / "reference",
        reference_target=request.baseline,
        shared=shared,
        machine=request.profile.machine(),
        host=request.host.machine(),
        threads=request.threads,
        limit=request.max_increase,
        options=request.options,
    )


def _summarize(workload: Workload) -> str:
    parts = []
    for name, verb in (("calibration", "calibrate"), ("tuning", "tune"), ("evaluation", "judge")):
        part = getattr(workload.described, name)
        if part is not None:
            parts.append(f"{part.tokens:,} tokens {verb}")
    return f"{', '.join(parts)}; {count_noun(len(workload.asked.prompts), 'prompt')} to answer"


def _build_all(
    request: LanguageRequest, bench: Bench, folder: Path, tell: Progress, *, overwrite: bool
) -> LanguageBuilt:
    """Builds one target after the other, FP32 first; one that fails does not stop the others."""
    built = LanguageBuilt(model=bench.record, workload=bench.workload)
    for name in request.targets:
        task = f"build:{name}"
        tell.start(task, f"building {name}")
        try:
            artifact, reused = build(name, bench, folder / name, overwrite=overwrite, report=_say(tell, task))
        except Exception as error:
            fault = as_error(error, f"building {name}")
            told = fault.message.removeprefix(f"{name} ").removeprefix(f"{name}: ")
            tell.finish(task, f"{name}: {told}", ok=False)
            if name == request.baseline:  # without FP32 nothing can be said of any other
                fault.message = f"--baseline {name}: {told}"
                raise fault from error
            is_skipped = isinstance(fault, ToolchainMissingError) and name not in request.named
            built.absent.append(describe_absent(name, "skipped" if is_skipped else "failed", fault))
        else:
            built.artifacts[name], built.reused[name] = artifact, reused
            if name == request.baseline:
                bench.reference_artifact = artifact
            tell.finish(task, describe_artifact(artifact, reused=reused))
    return built


def _say(tell: Progress, task: str) -> Callable[[str], None]:
    return lambda text: tell.say(task, text)


def describe_artifact(artifact: LanguageArtifact, *, reused: bool) -> str:
    """Returns a line about an artifact: its size, how long it took, what it does to perplexity."""
    manifest = artifact.manifest
    parts = [f"{manifest.target}: {format_bytes(manifest.size_bytes)}"]
    parts.append("unchanged" if reused else f"built in {manifest.build_s:.1f} s")
    proof = manifest.proof
    if proof is not None and manifest.target == proof.reference:
        parts.append(f"perplexity {proof.perplexity:.4g} on {proof.tokens:,} tokens")
    elif proof is not None:
        parts.append(f"perplexity {describe_increase(proof.increase)}")
    return ", ".join(parts)
