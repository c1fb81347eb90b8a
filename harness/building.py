"""Builds several targets of one source: export, evidence, one artifact after the other.

A target that fails does not stop the others; what is missing is kept with its reason.
"""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.core.errors import (
    BadInputError,
    BuildFailedError,
    LimitNotMetError,
    ModelwrightError,
    ToolchainMissingError,
    UsageError,
)
from modelwright.core.faults import as_error
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.limit import require_limiting
from modelwright.core.outputs.states import State, StateChoice, parse_states
from modelwright.core.outputs.tasks.roles import Role, parse_task
from modelwright.core.outputs.user_metric import find_metric
from modelwright.core.records.artifact import Artifact, open_artifact
from modelwright.core.records.artifact_files import MANIFEST
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.shapes import require_shapes_fit
from modelwright.core.samples.materialize import is_random
from modelwright.core.samples.sample_set import SampleRef
from modelwright.core.samples.source import Named
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.exporting import Export, find_or_export
from modelwright.exporters.source import parse_source
from modelwright.harness.given_samples import add_reader, explain_made, export_alone, read_samples
from modelwright.harness.preconditions import find_hindrance, require_one_buildable
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.results.assemble import Absent, name_row
from modelwright.profiles import detect_host, explain_misfit, load_profile
from modelwright.profiles.schema import Profile
from modelwright.targets.building.build import build
from modelwright.targets.building.choices import BuildChoices, read_choices
from modelwright.targets.building.evidence import EVALUATION_LIMIT, Evidence, prepare_evidence
from modelwright.targets.table import get_target, suiting_targets

_SHOWN_STATES = 3


@dataclass(kw_only=True)
class Built:
    """What building all targets left."""

    artifacts: dict[str, Artifact] = field(default_factory=dict)
    reused: dict[str, bool] = field(default_factory=dict)
    absent: list[Absent] = field(default_factory=list)
    export: Export | None = None


def build_targets(
    source: str | Path,
    *,
    samples: Named,
    out: str | Path,
    evaluation: Named | None = None,
    targets: Sequence[str] | None = None,
    profile: str = "host",
    evaluation_limit: int = EVALUATION_LIMIT,
    task: str | None = None,
    states: Sequence[str] = (),
    options: Sequence[str] = (),
    shapes: Sequence[str] = (),
    plan: str | Path | None = None,
    repair_plan: bool = False,
    max_drop: float | None = None,
    metric: str | None = None,
    overwrite: bool = False,
    fresh: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> Built:
    """Builds artifacts into `out/TARGET`, and the verified model into `out/model`.

    Args:
        source: `model.onnx`, `model.pt2` or `file.py:factory`.
        samples: `.npz`, `file.py:function`, or `random[:COUNT]` for noise; a folder of pictures as a `SampleSource`.
        out: A folder.
        evaluation: Samples that only judge.
        targets: Names; None for all that suit the profile.
        profile: The machine they are for; may be another than this one.
        evaluation_limit: Judge on at most this many samples.
        task: What the outputs mean: `classes`, or `logits=classes,boxes=boxes`; None finds it in FP32's answers.
        states: `OUTPUT=INPUT` pairs: outputs that the next step is fed with; others are found by name and shape unless
            one of the texts is `none`.
        options: `NAME=VALUE`, or `TARGET:NAME=VALUE` for one target.
        shapes: `INPUT=MIN:OPT:MAX` ranges of dynamic inputs, for engines.
        plan: A file that says how many bits each layer gets, for the targets that follow one.
        repair_plan: Whether layers of the plan may go back to float where it loses too much.
        max_drop: Points that an artifact may lose against FP32; one that loses more fails, and is not delivered.
        metric: `file.py:function` of which it may lose them; None takes right answers, or without labels FP32's.
        overwrite: Replace artifacts that were built from other inputs.
        fresh: Export again although nothing that can be seen has changed.
        trust: Run code that a saved program, the source, holds.
        progress: Told what is going on.

    Returns:
        Artifacts by target, and what is missing with its reason.

    Raises:
        UsageError: Unknown target or option, or ranges of shapes that make no sense.
        BadInputError: Source, samples or `out` cannot be used.
        BuildFailedError: The export does not follow the source, or no target could be built.
        LimitNotMetError: Every target loses more than is allowed.
    """
    tell = Undisturbed(progress)
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    names = list(dict.fromkeys(targets or suiting_targets(chosen.machine())))
    for name in names:
        get_target(name)
    choices = read_choices(options, shapes, names, plan=plan, repair_plan=repair_plan)
    chosen_states = parse_states(states)
    require_one_buildable(names, chosen.machine())
    folder = Path(out)
    with made_folder(folder), locked_folder(folder), scratch_directory(folder) as scratch:
        export, evidence = prepare(
            source,
            model_path=folder / "model" / "model.onnx",
            samples=samples,
            evaluation=evaluation,
            limit=evaluation_limit,
            tasks=parse_task(task) if task else {},
            states=chosen_states,
            max_drop=max_drop,
            metric=metric,
            scratch=Path(scratch),
            overwrite=overwrite,
            fresh=fresh,
            trust=trust,
            progress=tell,
            review=lambda exported: None if overwrite else require_no_others(folder, exported),
        )
        exported = export.model
        require_shapes_fit(choices.shapes, exported.signature)
        choices.require_plan_fits(exported)
        built = build_all(
            names,
            exported,
            evidence,
            folder,
            chosen,
            host,
            tell,
            by_name=bool(targets),
            overwrite=overwrite,
            run=False,
            choices=choices,
        )
        built.export = export
        for sentence in tell_others(folder, exported):
            tell.finish("build", sentence, ok=False)
    if not built.artifacts:
        raise explain_nothing_built(built)
    return built


def require_no_others(folder: Path, exported: ExportedModel) -> None:
    """Refuses to put a model beside artifacts of another one: nothing would say any more what they were made from.

    Raises:
        BadInputError: There are some; names them.
    """
    others = find_others(folder, exported)
    if others:
        sources = sorted({artifact.manifest.source.path for artifact in others.values()})
        raise BadInputError(
            f"{folder} holds artifacts of another model than {exported.source.path}: {', '.join(others)}, built from "
            f"{', '.join(sources)} as it was then",
            hint="choose another --out, or add --overwrite to replace that model and what is built again",
        )


def tell_others(folder: Path, exported: ExportedModel) -> list[str]:
    """Returns a sentence about the artifacts in a folder that were made from another model, if there are any."""
    others = find_others(folder, exported)
    if not others:
        return []
    verb = "is" if len(others) == 1 else "are"
    return [
        f"{', '.join(others)} in {folder} {verb} of another model than the one exported now, and left as before: "
        "remove what is not wanted any more, or build it again"
    ]


def find_others(folder: Path, exported: ExportedModel) -> dict[str, Artifact]:
    """Returns the artifacts in a folder that were made from another model, by the names of their folders."""
    others = {}
    for path in sorted(folder.glob(f"*/{MANIFEST}")):
        with contextlib.suppress(BadInputError):  # damaged: nothing says what it is of
            artifact = open_artifact(path.parent)
            if artifact.manifest.source.onnx_sha256 != exported.sha256:
                others[path.parent.name] = artifact
    return others


def prepare(
    source: str | Path,
    *,
    model_path: Path,
    samples: Named,
    evaluation: Named | None,
    limit: int,
    tasks: Mapping[str, Role],
    states: StateChoice,
    scratch: Path,
    stored: dict[str, Path] | None = None,
    max_drop: float | None = None,
    metric: str | None = None,
    overwrite: bool,
    fresh: bool,
    trust: bool,
    progress: Progress,
    review: Callable[[ExportedModel], None] = lambda _exported: None,
    admit: Callable[[ExportedModel], None] = lambda _exported: None,
) -> tuple[Export, Evidence]:
    """Exports a source and prepares the samples that its artifacts are built from and judged by.

    `review` takes the model before it replaces an earlier one, `admit` before the samples are read; each may raise.
    `stored` keeps the files of samples for the next model that has the same.
    """
    if metric is not None and max_drop is None:
        raise UsageError(
            f"--metric {metric} says of what an artifact may lose something, and nothing says how much",
            hint="give --max-drop POINTS too",
        )
    if max_drop is not None and not 0 <= max_drop < math.inf:
        raise UsageError(f"--max-drop {max_drop:g}: expected a number of points, 0 or more")
    if max_drop is not None and metric is None:
        require_limiting(max_drop)
    own_metric = None if metric is None else find_metric(metric)
    progress.start("export", f"exporting {source}")
    random = is_random(str(samples))
    say = functools.partial(progress.say, "export")
    files = {} if stored is None else stored
    samples, evaluation = add_reader(source, samples, evaluation)
    read = functools.partial(read_samples, stored=files, scratch=scratch, limit=limit, say=say)
    calibration_path, evaluation_path = read(samples, None, "samples"), read(evaluation, None, "evaluation")
    if calibration_path is None and not random and parse_source(source).kind != "onnx":
        signature = export_alone(source, scratch, say, fresh=fresh, trust=trust).signature
        calibration_path = read(samples, signature, "samples")
    origins = {str(calibration_path): str(samples)}
    with _in_the_users_words(origins):
        export = find_or_export(
            source,
            model_path,
            samples=None if calibration_path is None else SampleRef(path=calibration_path),
            overwrite=overwrite,
            replace_own=True,
            fresh=fresh,
            trust=trust,
            progress=say,
            review=review,
        )
    exported = export.model
    admit(exported)
    calibration_path = calibration_path or read(samples, exported.signature, "samples")
    evaluation_path = evaluation_path or read(evaluation, exported.signature, "evaluation")
    assert calibration_path is not None
    progress.finish("export", export.summarize())
    progress.start("samples", "reading the samples")
    for sentence in explain_made((str(samples), calibration_path), (str(evaluation), evaluation_path)):
        progress.finish("samples", sentence)
    origins = {str(calibration_path): str(samples)}
    if evaluation_path is not None:
        origins[str(evaluation_path)] = str(evaluation)
    with _in_the_users_words(origins):
        evidence = prepare_evidence(
            exported,
            calibration_path,
            scratch / "reference",
            evaluation=evaluation_path,
            limit=limit,
            random=random,
            origins=origins,
            tasks=tasks,
            states=states,
            max_drop=max_drop,
            metric=own_metric,
            progress=lambda text: progress.say("samples", text),
        )
    progress.finish("samples", _summarize_samples(evidence))
    for sentence in evidence.doubts:
        progress.finish("samples", sentence, ok=False)
    return export, evidence


@contextlib.contextmanager
def _in_the_users_words(origins: Mapping[str, str]) -> Iterator[None]:
    """Names samples in errors as the user did: the files that a function's samples are stored in are ours."""
    try:
        yield
    except ModelwrightError as error:
        for path, name in origins.items():
            error.message = error.message.replace(path, name)
        raise


def build_all(
    names: Sequence[str],
    exported: ExportedModel,
    evidence: Evidence,
    folder: Path,
    profile: Profile,
    host: Profile,
    tell: Progress,
    *,
    by_name: bool,
    overwrite: bool = True,
    run: bool = True,
    threads: int = 1,
    choices: BuildChoices | None = None,
    variant: str | None = None,
) -> Built:
    """Builds one target after the other; one that fails does not stop the others.

    Args:
        names: Targets, in order.
        exported: The verified FP32 model.
        evidence: Samples and FP32's outputs on them.
        folder: Each artifact goes into `folder/TARGET`.
        profile: The machine they are for.
        host: This machine.
        tell: Told what is going on.
        by_name: Whether the user asked for these targets; then a missing toolchain is a failure, not a skip.
        overwrite: Replace artifacts that were built from other inputs.
        run: Whether only targets that can run here are wanted.
        threads: That they are proved with.
        choices: Options and ranges of shapes; None for defaults.
        variant: Name of the model among several, for people.
    """
    built = Built()
    for name in names:
        shown = name_row(variant, name)
        task = f"build:{shown}"
        try:
            missing = find_hindrance(name, exported, host.machine(), run=run)
        except Exception as error:
            missing = as_error(error, f"asking whether {name} can be built")
        if missing is not None:
            built.absent.append(Absent(target=name, status="failed" if by_name else "skipped", error=missing))
            continue
        tell.start(task, f"building {shown}")
        try:
            artifact, reused = build(
                name,
                exported,
                evidence,
                folder / name,
                machine=profile.machine(),
                host=host.machine(),
                fits_host=not explain_misfit(profile, host),
                threads=threads,
                overwrite=overwrite,
                choices=choices,
                progress=_say(tell, task),
            )
        except ToolchainMissingError as error:
            built.absent.append(Absent(target=name, status="failed" if by_name else "skipped", error=error))
            tell.finish(task, f"{shown}: {error.message.removeprefix(f'{name} ')}", ok=False)
        except Exception as error:  # whatever it is, the other targets are built
            fault = as_error(error, f"building {name}")
            built.absent.append(Absent(target=name, status="failed", error=fault))
            tell.finish(task, f"{shown}: {fault.message.removeprefix(f'{name} ')}", ok=False)
        else:
            built.artifacts[name], built.reused[name] = artifact, reused
            fixed = exported.signature.describe_fixed(artifact.manifest.signature)
            told = summarize_build(artifact, reused=reused) + (f", {fixed}" if fixed else "")
            tell.finish(task, name_row(variant, told))
    return built


def _say(tell: Progress, task: str) -> Callable[[str], None]:
    return lambda text: tell.say(task, text)


def summarize_build(artifact: Artifact, *, reused: bool) -> str:
    """Returns a line about an artifact: size, seconds, how it follows FP32."""
    manifest = artifact.manifest
    parts = [f"{manifest.size_bytes / 1e6:.2f} MB", "unchanged" if reused else f"{manifest.build_s:.1f} s"]
    if manifest.proof is None:
        parts.append(manifest.proof_reason or "not proved")
    else:
        parts += describe_fidelity(manifest.proof.fidelity)
        if manifest.proof.chain is not None:
            parts.append(manifest.proof.chain.describe())
        if manifest.proof.drop is not None and manifest.proof.drop.by != "kept":
            parts.append(manifest.proof.drop.describe())
        if manifest.proof.emulated:
            parts.append("its graph evaluated by ONNX Runtime on the CPU")
        if manifest.proof.arithmetic is not None and not manifest.proof.arithmetic.alike:
            parts.append(f"unproved for {manifest.machine.name}: {manifest.proof.arithmetic.why}")
    return f"{manifest.target}: {', '.join(parts)}"


def describe_fidelity(fidelity: Fidelity) -> list[str]:
    """Returns how an artifact follows FP32, in the words of its task."""
    parts, task = [], fidelity.task
    if fidelity.agreement is not None:
        parts.append(f"agreement {fidelity.agreement:.1%}")
    elif task and task.kept is not None and task.measure != "cosine":
        parts.append(f"{task.measure} {task.kept:.1%}")
    if fidelity.cosine is not None:
        parts.append(f"cosine {fidelity.cosine:.5f}")
    return parts


def _summarize_samples(evidence: Evidence) -> str:
    counts = [f"{part['count']} {name}" for name, part in evidence.described.items() if part is not None]
    labelled = (evidence.described["evaluation"] or {}).get("labels")
    kind = "random samples" if evidence.random else "samples"
    fed = "" if evidence.chain is None else f"; chained: {_list_states(evidence.chain.states)}"
    return f"{kind}: {', '.join(counts)}{', labelled' if labelled else ''}{fed}"


def _list_states(states: Sequence[State]) -> str:
    shown = ", ".join(state.describe() for state in states[:_SHOWN_STATES])
    return shown + (f" and {len(states) - _SHOWN_STATES} more" if len(states) > _SHOWN_STATES else "")


def explain_nothing_built(built: Built) -> ModelwrightError:
    """Returns the error that fits when every target is missing."""
    if len(built.absent) == 1:
        return built.absent[0].error
    reasons = "\n".join(f"{absent.target}: {absent.error.message}" for absent in built.absent)
    kinds = {type(absent.error) for absent in built.absent}
    cls: type[ModelwrightError] = ToolchainMissingError if kinds == {ToolchainMissingError} else BuildFailedError
    if all(issubclass(kind, LimitNotMetError) for kind in kinds):
        cls = LimitNotMetError
    hints = [absent.error.hint for absent in built.absent if absent.error.hint]
    return cls("no target could be built", hint=hints[0] if hints else "see `modelwright targets`", detail=reasons)
