"""From FP32 models to a comparison: export, build every target, prove, measure together, judge, write.

What was finished is kept whatever happens later, and found again by the next run: artifacts whose inputs have not
changed are not built again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import MeasurementInvalidError, ModelwrightError
from modelwright.core.records.codec import decode, encode
from modelwright.core.samples.source import Named
from modelwright.core.scratch import scratch_directory
from modelwright.exporters.source import parse_source
from modelwright.harness.building import Built, build_all, explain_nothing_built, tell_others
from modelwright.harness.claimed import claimed_folder, spell_source
from modelwright.harness.earlier import EarlierRun, hash_measured
from modelwright.harness.formatting import count_noun, describe_turns
from modelwright.harness.preconditions import require_baseline
from modelwright.harness.preparing import prepare_all
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.request import Request, make_request
from modelwright.harness.results.assemble import Context, assemble_comparison, describe_environment, name_row
from modelwright.harness.results.fleet import count_fleet
from modelwright.harness.results.fleet_record import Usage
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.paths import relate_paths
from modelwright.harness.results.record import Comparison, Samples
from modelwright.harness.run.measure_artifacts import Measurements, measure_artifacts
from modelwright.harness.run.settle import explain_settings
from modelwright.harness.variants import (
    Prepared,
    describe_variants,
    explain_variants,
    hold_all_against,
    join_built,
    name_subjects,
)
from modelwright.harness.verdict.judge import finish_comparison
from modelwright.harness.writing import UnfinishedError, require_places, write_comparison
from modelwright.targets.building.evidence import EVALUATION_LIMIT
from modelwright.targets.table import BASELINE


def compare(
    source: str | Path | Sequence[str | Path],
    *,
    samples: Named,
    out: str | Path,
    evaluation: Named | None = None,
    targets: Sequence[str] | None = None,
    baseline: str = BASELINE,
    effort: str = "standard",
    profile: str = "host",
    threads: int | None = None,
    batch: int = 1,
    device: str = "auto",
    cuda_graph: bool = False,
    spin: bool = False,
    streams: int = 1,
    settings: Sequence[str] = (),
    region: str | None = None,
    evaluation_limit: int = EVALUATION_LIMIT,
    task: str | None = None,
    states: Sequence[str] = (),
    options: Sequence[str] = (),
    shapes: Sequence[str] = (),
    plan: str | Path | None = None,
    repair_plan: bool = False,
    limits: Limits | None = None,
    metric: str | None = None,
    seed: int = 0,
    overwrite: bool = False,
    fresh: bool = False,
    show_paths: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Builds targets of one source, or of several, measures them side by side and writes the comparison.

    Args:
        source: `model.onnx`, `model.pt2`, `file.py:factory` or a folder of transformers that classifies or embeds
            texts; or several, which have the same inputs and outputs. Then a row is a model and a target,
            `student/ort-int8`, and agreement is with the first model's FP32.
        samples: `.npz`, `file.py:function`, or `random[:COUNT]` for noise; calibrates, and judges too unless
            `evaluation` is given.
        out: A folder: `artifacts/TARGET/`, `model/`, `results.json`, `results.csv`, `report.html`; of further models,
            `variants/NAME/artifacts/TARGET/` and `variants/NAME/model/`.
        evaluation: Samples that only judge.
        targets: Names; None for all that suit the profile.
        baseline: The target, of the first model, that speed-ups are over; built and measured even if not among
            `targets`.
        effort: `quick`, `standard` or `strict`.
        profile: The machine the numbers are for; refused when this is another one.
        threads: Of every runtime; None for 1.
        batch: Samples an inference.
        device: `auto`, `cpu` or `cuda`: where targets run that can do both.
        cuda_graph: Launch computations on the GPU as CUDA graphs.
        spin: Wait for the GPU by polling.
        streams: Inferences in flight on the GPU where the computation alone is timed.
        settings: `NAME=VALUE` of runtimes' settings, or `TARGET:NAME=VALUE` for one target. The answers are then held
            against FP32's once more, as settings may change them.
        region: Of the grid, for carbon; None for the profile's.
        evaluation_limit: Judge on at most this many samples.
        task: What the outputs mean: `classes`, or `logits=classes,boxes=boxes`; None finds it in FP32's answers.
        states: `OUTPUT=INPUT` pairs: outputs that the next step is fed with; others are found by name and shape unless
            one of the texts is `none`.
        options: `NAME=VALUE` of targets' build options, or `TARGET:NAME=VALUE` for one target.
        shapes: `INPUT=MIN:OPT:MAX` ranges of dynamic inputs, for engines.
        plan: A file that says how many bits each layer gets, for the targets that follow one.
        repair_plan: Whether layers of the plan may go back to float where it loses too much.
        limits: What a target must meet to be shipped; one that loses more than `max_drop` fails, and is not delivered.
        metric: `file.py:function` of which no more than that may be lost; None takes right answers, or without labels
            FP32's.
        seed: Of the order of turns.
        overwrite: Use `out` even though it holds a comparison of another source.
        fresh: Export again although nothing that can be seen has changed.
        show_paths: Write paths as they were given; without it results.json says the way from its own folder, and
            report.html names files only.
        trust: Run code that a saved program, the source, holds.
        progress: Told what is going on.

    Returns:
        What `results.json` holds.

    Raises:
        UsageError: Unknown target or effort.
        BadInputError: Source, samples, `out` or the baseline cannot be used, or models have other inputs or outputs.
        ToolchainMissingError: The baseline cannot be built or run here, or a GPU is asked for and there is none.
        BuildFailedError: The export does not follow the source, or no target could be built.
        MeasurementInvalidError: The profile is of another machine, or nothing could be measured.
        UnfinishedError: It could not be judged, or a file not be written; has the comparison.
    """
    sources = [source] if isinstance(source, str | Path) else list(source)
    request = make_request(
        name_subjects(sources),
        samples=samples,
        evaluation=evaluation,
        targets=targets,
        baseline=baseline,
        effort=effort,
        profile=profile,
        threads=threads,
        batch=batch,
        device=device,
        cuda_graph=cuda_graph,
        spin=spin,
        streams=streams,
        settings=settings,
        region=region,
        evaluation_limit=evaluation_limit,
        task=task,
        states=states,
        options=options,
        shapes=shapes,
        plan=plan,
        repair_plan=repair_plan,
        limits=limits,
        metric=metric,
        seed=seed,
        overwrite=overwrite,
        fresh=fresh,
        show_paths=show_paths,
        trust=trust,
    )
    for each in sources:
        parse_source(each)
    folder, owner = Path(out), "; ".join(map(spell_source, sources))
    with claimed_folder(folder, owner, overwrite=overwrite):
        return carry_out(request, folder, Undisturbed(progress))


def carry_out(
    request: Request,
    folder: Path,
    tell: Progress,
    *,
    earlier: EarlierRun | None = None,
    usage: Usage | None = None,
    lost: Mapping[str, ModelwrightError] | None = None,
) -> Comparison:
    """Makes a comparison in a folder that is claimed for it.

    Args:
        request: What it is to be of.
        folder: To write into.
        tell: Told what is going on.
        earlier: Whose figures are taken where they still hold; None measures in any case.
        usage: Of a fleet, whose energy, carbon and costs are counted.
        lost: Models that could not be made, by name, and why: they are rows. None for a comparison that is not worth
            its time where but the first model can be prepared.

    Raises:
        As `compare`.
    """
    require_places(folder)
    with scratch_directory(folder) as scratch_name:
        scratch = Path(scratch_name)
        prepared, missing = prepare_all(request, folder, scratch, tell, lost=lost or {})
        if missing and len(prepared) == 1 and lost is None:
            raise missing[0].error
        described = describe_variants(prepared, scratch)  # what fails of it fails before minutes of measuring
        built = _build_all(request, prepared, tell)
        if not built.artifacts:
            raise explain_nothing_built(built)
        key = None if earlier is None else hash_measured(request, built.artifacts)
        known = None if earlier is None or key is None else earlier.find(key)
        measurements = _measure(request, built, tell) if known is None else known
    first = prepared[0]
    evidence = first.evidence
    comparison = assemble_comparison(
        Context(
            settings=request.settings,
            profile=request.profile,
            host=request.host,
            region=request.region,
            baseline=name_row(first.name, request.baseline),
        ),
        source=first.describe_source(),
        samples=decode(
            Samples,
            {
                **evidence.described,
                "random": evidence.random,
                "pictures": encode(evidence.pictures),
                "texts": encode(evidence.texts),
            },
            where="the samples",
        ),
        artifacts=built.artifacts,
        reused=built.reused,
        measurements=measurements,
        absent=[*built.absent, *missing],
        warnings=[
            *explain_variants(prepared),
            *evidence.doubts,
            *(text for model in prepared for text in tell_others(model.folder / "artifacts", model.model)),
            *explain_settings(built.artifacts, request.settings, describe_environment(request.host).device),
        ],
        variants=described,
    )
    measured = len(comparison.measured)
    told = f"{count_noun(measured, 'artifact')} measured"
    if known is not None:
        told += f" at {known.timestamp[:19].replace('T', ' ')} UTC, and nothing that decides it has changed"
    tell.finish("measure", told, ok=measured > 0)
    comparison, fault = finish_comparison(comparison, request.limits)
    if usage is not None:
        comparison = replace(comparison, fleet=count_fleet(comparison, usage, request.region))
    if not request.show_paths:
        comparison = relate_paths(comparison, folder)
    faults = [
        *([] if fault is None else [fault]),
        *write_comparison(folder, comparison, show_paths=request.show_paths),
    ]
    if faults:
        raise UnfinishedError(comparison, faults)
    if not measured:
        reasons = "; ".join(f"{row.target}: {row.reason}" for row in comparison.measurements)
        raise MeasurementInvalidError(f"nothing could be measured: {reasons}", hint=f"see {folder / 'results.json'}")
    if earlier is not None and key is not None:
        earlier.keep(key)
    return comparison


def _measure(request: Request, built: Built, tell: Progress) -> Measurements:
    tell.start("measure", describe_turns(len(built.artifacts)))
    return measure_artifacts(
        built.artifacts,
        request.settings,
        request.profile,
        request.host,
        samples=None,  # the few packed with each artifact: mapping the whole file would count as its memory
        prove=bool(request.settings.options),
        profile_operators=True,
        on_round=lambda done, total: tell.advance("measure", done, total),
        on_event=lambda text: tell.say("measure", text),
    )


def _build_all(request: Request, prepared: Sequence[Prepared], tell: Progress) -> Built:
    """Builds the targets of every model, and holds what comes out against the first one's answers."""
    first, host, threads = prepared[0], request.host.machine(), request.settings.threads or 1
    if request.baseline != BASELINE:
        require_baseline(request.baseline, first.model, request.profile.machine(), host)
    parts = {}
    targets = dict(zip((subject.name for subject in request.subjects), request.targets, strict=True))
    for model in prepared:
        part = build_all(
            targets[model.name],
            model.model,
            model.evidence,
            model.folder / "artifacts",
            request.profile,
            request.host,
            tell,
            by_name=request.by_name,
            threads=threads,
            choices=request.choices,
            variant=model.name,
        )
        if model is not first:
            part = hold_all_against(first, model, part, host, threads, tell)
        parts[model.name] = part
    return join_built(parts)
