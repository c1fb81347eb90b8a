"""From one FP32 model to the way it runs best on this machine: build, search, measure anew, deliver."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from modelwright.core.cores import available_cores
from modelwright.core.errors import UsageError
from modelwright.core.outputs.states import parse_states
from modelwright.core.outputs.tasks.roles import parse_task
from modelwright.core.path_names import drop_folders
from modelwright.core.records.machine import Machine
from modelwright.core.records.shapes import require_shapes_fit
from modelwright.core.records.tuned import Goal
from modelwright.core.samples.source import Named
from modelwright.core.scratch import locked_folder, made_folder, scratch_directory
from modelwright.exporters.source import parse_source
from modelwright.harness.building import Built, build_all, explain_nothing_built, prepare
from modelwright.harness.preconditions import require_one_buildable
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.results.assemble import describe_environment
from modelwright.harness.run.measure_artifacts import require_threads
from modelwright.harness.tuning.budget import parse_budget
from modelwright.harness.tuning.claim import Claim
from modelwright.harness.tuning.job import Job, find_versions
from modelwright.harness.tuning.record import Tuning
from modelwright.harness.tuning.study import import_optuna
from modelwright.profiles import detect_host, load_profile, require_fit
from modelwright.targets.building.choices import read_choices
from modelwright.targets.building.evidence import EVALUATION_LIMIT, Evidence
from modelwright.targets.table import get_target, suiting_targets


def tune(
    source: str | Path,
    *,
    samples: Named,
    out: str | Path,
    goal: Goal = "latency",
    budget: str = "10m",
    targets: Sequence[str] | None = None,
    evaluation: Named | None = None,
    evaluation_limit: int = EVALUATION_LIMIT,
    task: str | None = None,
    states: Sequence[str] = (),
    options: Sequence[str] = (),
    shapes: Sequence[str] = (),
    profile: str = "host",
    max_drop: float | None = None,
    metric: str | None = None,
    threads: int | None = None,
    batch: int = 1,
    seed: int = 0,
    overwrite: bool = False,
    fresh: bool = False,
    trust: bool = False,
    progress: Progress | None = None,
) -> tuple[Tuning, Built]:
    """Searches how a model runs best on this machine, and delivers that into `out/best`.

    Args:
        source: `model.onnx`, `model.pt2` or `file.py:factory`.
        samples: `.npz`, `file.py:function`, or `random[:COUNT]` for noise.
        out: A folder: `artifacts/TARGET/`, `best/`, `model/`, `tune.json`, `trials.csv`, `report.html`, what the search
            is of (`search.json`), and its journal, which the next run goes on with.
        goal: What is to be better: `latency`, `throughput`, `size` or `energy`.
        budget: What the trials may take, such as `10m` or `40`.
        targets: Names; None for all that suit this machine and run on its CPU.
        evaluation: Samples that only judge.
        evaluation_limit: Judge on at most this many samples.
        task: What the outputs mean: `classes`, or `logits=classes,boxes=boxes`; None finds it in FP32's answers.
        states: `OUTPUT=INPUT` pairs: outputs that the next step is fed with.
        options: `NAME=VALUE` of targets' build options, or `TARGET:NAME=VALUE` for one target.
        shapes: `INPUT=MIN:OPT:MAX` ranges of dynamic inputs, for runtimes that plan for them.
        profile: This machine: its targets, and its power figures where energy is estimated. Refused when this is
            another one.
        max_drop: Points that an artifact may lose against FP32; one that loses more is never tried.
        metric: `file.py:function` of which it may lose them; None takes right answers, or without labels FP32's.
        threads: That may be used at most; None for all that this process may use.
        batch: Samples an inference.
        seed: Of the order of turns and of the search.
        overwrite: Begin anew in a folder that holds another search, or something else.
        fresh: Export again although nothing that can be seen has changed.
        trust: Run code that a saved program, the source, holds.
        progress: Told what is going on.

    Returns:
        What was tried and found, and what was built.

    Raises:
        UsageError: No such budget, target or option, or more threads than this machine has.
        BadInputError: Source, samples or `out` cannot be used; or `out` holds another search, or a damaged one.
        ToolchainMissingError: Optuna is absent, or no target can be built.
        BuildFailedError: The export does not follow the source, or no target could be built.
        LimitNotMetError: Every target loses more than is allowed.
        MeasurementInvalidError: The profile is of another machine, nothing runs here, or the energy can neither be
            metered nor estimated.
    """
    tell = Undisturbed(progress)
    allowed = parse_budget(budget)
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    require_fit(chosen, host)
    names = _choose_targets(targets, chosen.machine())
    choices = read_choices(options, shapes, names, batch)
    chosen_states = parse_states(states)
    most = threads or available_cores()
    require_threads(most, host)
    require_one_buildable(names, chosen.machine())
    folder = Path(out)
    parse_source(source)
    if goal != "size":
        import_optuna()  # before minutes are spent on building
    with made_folder(folder), locked_folder(folder), scratch_directory(folder) as scratch:
        claim = Claim(folder, overwrite=overwrite)
        claim.settle(
            goal=goal,
            targets=", ".join(names),
            threads=str(most),
            batch=str(batch),
            profile=profile,
            task=task or "",
            states=" ".join(states),
            options=" ".join(options),
            shapes=" ".join(shapes),
            max_drop="" if max_drop is None else f"{max_drop:g}",
            metric=metric or "",
            machine=describe_environment(host).device,
            runtimes=", ".join(f"{name} {version}" for name, version in find_versions(names).items()),
        )
        export, evidence = prepare(
            source,
            model_path=folder / "model" / "model.onnx",
            samples=samples,
            evaluation=evaluation,
            limit=evaluation_limit,
            max_drop=max_drop,
            metric=metric,
            tasks=parse_task(task) if task else {},
            states=chosen_states,
            scratch=Path(scratch),
            overwrite=True,
            fresh=fresh,
            trust=trust,
            progress=tell,
            review=lambda exported: claim.settle(model=_name_hash(exported.sha256)),
        )
        claim.settle(model=_name_hash(export.model.sha256), **_describe_samples(evidence))
        require_shapes_fit(choices.shapes, export.model.signature)
        built = build_all(
            names,
            export.model,
            evidence,
            folder / "artifacts",
            chosen,
            host,
            tell,
            by_name=bool(targets),
            choices=choices,
        )
        if not built.artifacts:
            raise explain_nothing_built(built)
        job = Job(
            folder=folder,
            source=drop_folders(str(source)),
            goal=goal,
            budget=allowed,
            host=host,
            profile=chosen,
            exported=export.model,
            evidence=evidence,
            artifacts=built.artifacts,
            threads=most,
            batch=batch,
            seed=seed,
            tell=tell,
        )
        return job.run(), built


def _choose_targets(targets: Sequence[str] | None, machine: Machine) -> list[str]:
    """Returns the targets to build, in the user's order: the first one's defaults are what everything is held against.

    Raises:
        UsageError: One runs on GPUs alone, whose settings are not searched.
    """
    names = list(dict.fromkeys(targets or suiting_targets(machine)))
    on_gpu = [name for name in names if "cpu" not in get_target(name).record.devices]
    if targets and on_gpu:
        raise UsageError(
            f"{', '.join(on_gpu)}: tune searches how models run on the CPU",
            hint="compare GPU targets with `modelwright compare`, --cuda-graph and --streams",
        )
    return [name for name in names if name not in on_gpu]


def _describe_samples(evidence: Evidence) -> dict[str, str]:
    """Returns a part of the samples -> how many they are, and of which content."""
    return {
        f"{name}_samples": "" if part is None else f"{part['count']} of {_name_hash(part['sha256'])}"
        for name, part in evidence.described.items()
    }


def _name_hash(sha256: str) -> str:
    return f"sha256 {sha256[:16]}"
