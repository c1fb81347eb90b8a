"""From FP32 models to a comparison: export, build every target, prove, measure together, judge, write.

What was finished is kept whatever happens later, and found again by the next run: artifacts whose inputs have not
changed are not built again.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.files import write_json
from modelwright.core.outputs.states import parse_states
from modelwright.core.outputs.tasks.roles import parse_task
from modelwright.core.records.codec import Record, decode, encode, read_record
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.shapes import require_shapes_fit
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.source import parse_source
from modelwright.harness.building import build_all, explain_nothing_built, prepare, tell_others
from modelwright.harness.formatting import count_noun, describe_turns
from modelwright.harness.preconditions import require_baseline, require_gpu_for
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.results.assemble import Context, assemble_comparison, describe_environment, name_row
from modelwright.harness.results.limits import Limits
from modelwright.harness.results.paths import relate_paths
from modelwright.harness.results.record import Comparison, Samples
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.inputs import require_memory
from modelwright.harness.run.measure_artifacts import measure_artifacts, require_threads
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.settle import explain_settings, read_settings
from modelwright.harness.variants import (
    FOLDER,
    Prepared,
    describe_variants,
    explain_variants,
    hold_all_against,
    in_name_of,
    join_built,
    name_variants,
    require_alike,
)
from modelwright.harness.verdict.judge import finish_comparison
from modelwright.harness.writing import UnfinishedError, require_places, write_comparison
from modelwright.profiles import detect_host, find_region, load_profile, require_fit
from modelwright.targets.building.choices import read_choices
from modelwright.targets.building.evidence import EVALUATION_LIMIT, Evidence
from modelwright.targets.table import BASELINE, get_target, suiting_targets, target_names

MARKER = ".modelwright.json"


def compare(
    source: str | Path | Sequence[str | Path],
    *,
    samples: str | Path,
    out: str | Path,
    evaluation: str | Path | None = None,
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
        source: `model.onnx`, `model.pt2` or `file.py:factory`; or several, which have the same inputs and outputs. Then
            a row is a model and a target, `student/ort-int8`, and agreement is with the first model's FP32.
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
    tell = Undisturbed(progress)
    threads = threads or 1
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    names = _choose_targets(targets or suiting_targets(chosen.machine()), baseline)
    asked = MeasureSettings(
        effort=get_effort(effort),
        threads=threads,
        batch=batch,
        seed=seed,
        device=device,
        cuda_graph=cuda_graph,
        spin=spin,
        streams=streams,
        options=read_settings(settings, names),
    )
    choices = read_choices(options, shapes, names, batch)
    chosen_states = parse_states(states)
    require_fit(chosen, host)
    require_threads(threads, host)
    require_gpu_for(asked)
    grid_region = find_region(region or chosen.grid_region)
    folder = Path(out)
    sources = [source] if isinstance(source, str | Path) else list(source)
    variants = name_variants(sources)
    for each in sources:
        parse_source(each)
    with _claimed_folder(folder, sources, overwrite=overwrite):
        require_places(folder)
        with scratch_directory(folder) as scratch_name:
            scratch = Path(scratch_name)
            prepared: list[Prepared] = []
            for variant, each in zip(variants, sources, strict=True):
                place = folder if not prepared else folder / FOLDER / str(variant)
                with in_name_of(variant):
                    export, evidence = prepare(
                        each,
                        model_path=place / "model" / "model.onnx",
                        samples=samples,
                        evaluation=evaluation,
                        limit=evaluation_limit,
                        tasks=parse_task(task) if task else {},
                        states=chosen_states,
                        max_drop=None if limits is None else limits.asked.get("max_drop"),
                        metric=metric,
                        scratch=scratch / str(len(prepared)),
                        overwrite=overwrite,
                        fresh=fresh,
                        trust=trust,
                        progress=tell,
                        admit=_require_alike_to(prepared),
                    )
                prepared.append(Prepared(name=variant, folder=place, export=export, evidence=evidence))
                _check_batch(export.model, evidence, batch)
                require_shapes_fit(choices.shapes, export.model.signature)
            first = prepared[0]
            if baseline != BASELINE:
                require_baseline(baseline, first.model, chosen.machine(), host.machine())
            parts = {}
            for model in prepared:
                part = build_all(
                    names,
                    model.model,
                    model.evidence,
                    model.folder / "artifacts",
                    chosen,
                    host,
                    tell,
                    by_name=bool(targets),
                    threads=threads,
                    choices=choices,
                    variant=model.name,
                )
                if model is not first:
                    part = hold_all_against(first, model, part, host.machine(), threads, tell)
                parts[model.name] = part
            built = join_built(parts)
            if not built.artifacts:
                raise explain_nothing_built(built)
            tell.start("measure", describe_turns(len(built.artifacts)))
            measurements = measure_artifacts(
                built.artifacts,
                asked,
                chosen,
                host,
                samples=None,  # the few packed with each artifact: mapping the whole file would count as its memory
                prove=bool(asked.options),
                profile_operators=True,
                on_round=lambda done, total: tell.advance("measure", done, total),
                on_event=lambda text: tell.say("measure", text),
            )
            described = describe_variants(prepared, scratch)
        evidence = first.evidence
        comparison = assemble_comparison(
            Context(
                settings=asked,
                profile=chosen,
                host=host,
                region=grid_region,
                baseline=name_row(first.name, baseline),
            ),
            source=first.describe_source(),
            samples=decode(Samples, {**evidence.described, "random": evidence.random}, where="the samples"),
            artifacts=built.artifacts,
            reused=built.reused,
            measurements=measurements,
            absent=built.absent,
            warnings=[
                *explain_variants(prepared),
                *evidence.doubts,
                *(text for model in prepared for text in tell_others(model.folder / "artifacts", model.model)),
                *explain_settings(built.artifacts, asked, describe_environment(host).device),
            ],
            variants=described,
        )
        measured = len(comparison.measured)
        tell.finish("measure", f"{count_noun(measured, 'artifact')} measured", ok=measured > 0)
        comparison, fault = finish_comparison(comparison, limits)
        if not show_paths:
            comparison = relate_paths(comparison, folder)
        faults = [
            *([] if fault is None else [fault]),
            *write_comparison(folder, comparison, show_paths=show_paths),
        ]
    if faults:
        raise UnfinishedError(comparison, faults)
    if not measured:
        reasons = "; ".join(f"{row.target}: {row.reason}" for row in comparison.measurements)
        raise MeasurementInvalidError(f"nothing could be measured: {reasons}", hint=f"see {folder / 'results.json'}")
    return comparison


def _choose_targets(targets: Sequence[str], baseline: str) -> list[str]:
    """Returns the targets in the table's order, the baseline among them; unknown names are refused at once."""
    wanted = {*targets, baseline}
    for name in sorted(wanted):
        get_target(name)
    return [name for name in target_names() if name in wanted]


class _Mark(Record):
    """What `MARKER` holds: of which source the comparison in its folder is."""

    schema: Literal[1] = 1
    source: str


@contextlib.contextmanager
def _claimed_folder(folder: Path, sources: Sequence[str | Path], *, overwrite: bool) -> Iterator[None]:
    """Makes the output folder, or finds that it is a comparison of the same source, and holds it for this process.

    When the block fails before anything was finished, the folder is as it was before.

    Raises:
        BadInputError: It is a file, holds something else, a comparison of another source, or is in use.
    """
    marker, source = folder / MARKER, "; ".join(map(_absolute, sources))
    with made_folder(folder), locked_folder(folder):
        if marker.is_file():
            earlier = read_record(_Mark, marker, what="the mark of a comparison", hint="choose another --out")
            if earlier.source != source and not overwrite:
                raise BadInputError(
                    f"{folder} holds a comparison of {earlier.source}", hint="choose another --out, or add --overwrite"
                )
        elif any(folder.iterdir()) and not overwrite:
            raise BadInputError(
                f"{folder} exists and holds something else than a comparison",
                hint="choose another --out, or add --overwrite to write into it",
            )
        write_json(marker, encode(_Mark(source=source)))
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):
                if [path.name for path in folder.iterdir()] == [MARKER]:
                    marker.unlink()
            raise


def _absolute(source: str | Path) -> str:
    # Spelled as UTF-8 whatever the locale, so that the next run finds the same text.
    text = os.fsencode(source).decode("utf-8", "backslashreplace")
    path, separator, function = text.rpartition(":")
    return f"{Path(path).resolve()}:{function}" if separator else str(Path(text).resolve())


def _require_alike_to(prepared: Sequence[Prepared]) -> Callable[[ExportedModel], None]:
    return lambda model: require_alike(prepared[0], model) if prepared else None


def _check_batch(exported: ExportedModel, evidence: Evidence, batch: int) -> None:
    inputs = exported.signature.inputs
    if batch != 1 and not exported.signature.batch_is_dynamic:
        raise BadInputError(
            f"--batch {batch}: the model's first dimensions are fixed: {'; '.join(spec.describe() for spec in inputs)}",
            hint="export it with a dynamic first dimension, or measure with --batch 1",
        )
    shapes = evidence.sampled_shapes
    sample = {spec.name: np.broadcast_to(np.empty((), spec.dtype), shapes[spec.name][0]) for spec in inputs}
    require_memory(sample, batch)
