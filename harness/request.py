"""What a comparison is to be of, checked as far as that goes without running anything."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.core.errors import UsageError
from modelwright.core.outputs.states import StateChoice, parse_states
from modelwright.core.outputs.tasks.roles import Role, parse_task
from modelwright.core.samples.source import Named
from modelwright.harness.preconditions import require_gpu_for
from modelwright.harness.results.limits import Limits
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.measure_artifacts import require_threads
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.run.settle import read_settings
from modelwright.harness.variants import Subject
from modelwright.profiles import detect_host, find_region, load_profile, require_fit
from modelwright.profiles.grid import GridRegion
from modelwright.profiles.schema import Profile
from modelwright.targets.building.choices import BuildChoices, read_choices
from modelwright.targets.building.evidence import EVALUATION_LIMIT
from modelwright.targets.table import BASELINE, get_target, suiting_targets, target_names


@dataclass(frozen=True, kw_only=True)
class Request:
    """A comparison that is to be made.

    Attributes:
        subjects: The models, the first of which all are held against.
        targets: Of each model, in its place, in the order of the table.
        by_name: Whether the user named targets; then one that cannot be built here is a failure, not a skip.
        samples: That calibrate, and judge too unless `evaluation` is given.
        evaluation: That only judge.
        evaluation_limit: Judge on at most this many.
        baseline: The target of the first model that speed-ups are over.
        settings: How to measure.
        profile: The machine the numbers are for.
        host: This machine.
        region: Of the grid, for carbon.
        tasks: Output -> what it means, as the user said it.
        states: What the user said about states.
        choices: Options of targets, ranges of shapes, and a plan of precisions.
        limits: What a target must meet to be shipped.
        metric: The user's, of which no more than `max_drop` may be lost.
        overwrite: Replace exports of other sources.
        fresh: Export again although nothing that can be seen has changed.
        show_paths: Write paths as they were given.
        trust: Run code that a saved program holds.
    """

    subjects: tuple[Subject, ...]
    targets: tuple[tuple[str, ...], ...]
    by_name: bool
    samples: Named
    evaluation: Named | None
    evaluation_limit: int
    baseline: str
    settings: MeasureSettings
    profile: Profile
    host: Profile
    region: GridRegion
    tasks: Mapping[str, Role]
    states: StateChoice
    choices: BuildChoices
    limits: Limits | None
    metric: str | None
    overwrite: bool
    fresh: bool
    show_paths: bool
    trust: bool

    @property
    def max_drop(self) -> float | None:
        return None if self.limits is None else self.limits.asked.get("max_drop")


def make_request(
    subjects: Sequence[Subject],
    *,
    samples: Named,
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
    region: str | GridRegion | None = None,
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
) -> Request:
    """Reads what a comparison is to be of, in the words of `compare`.

    Raises:
        UsageError: Unknown target, effort, option or setting.
        BadInputError: Unknown profile or region.
        ToolchainMissingError: A GPU is asked for and there is none.
        MeasurementInvalidError: The profile is of another machine.
    """
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    of_all = targets or suiting_targets(chosen.machine())
    lists = tuple(
        _choose_targets(subject.targets or of_all, () if number else (baseline,))
        for number, subject in enumerate(subjects)
    )
    names = _choose_targets([name for each in lists for name in each], (baseline,))
    asked = MeasureSettings(
        effort=get_effort(effort),
        threads=threads or 1,
        batch=batch,
        seed=seed,
        device=device,
        cuda_graph=cuda_graph,
        spin=spin,
        streams=streams,
        options=read_settings(settings, names),
    )
    _require_one_model(plan, subjects)
    choices = read_choices(options, shapes, names, batch, plan=plan, repair_plan=repair_plan)
    chosen_states = parse_states(states)
    require_fit(chosen, host)
    require_threads(asked.threads or 1, host)
    require_gpu_for(asked)
    return Request(
        subjects=tuple(subjects),
        targets=lists,
        by_name=bool(targets) or any(subject.targets for subject in subjects),
        samples=samples,
        evaluation=evaluation,
        evaluation_limit=evaluation_limit,
        baseline=baseline,
        settings=asked,
        profile=chosen,
        host=host,
        region=region if isinstance(region, GridRegion) else find_region(region or chosen.grid_region),
        tasks=parse_task(task) if task else {},
        states=chosen_states,
        choices=choices,
        limits=limits,
        metric=metric,
        overwrite=overwrite,
        fresh=fresh,
        show_paths=show_paths,
        trust=trust,
    )


def _require_one_model(plan: str | Path | None, subjects: Sequence[Subject]) -> None:
    if plan is not None and len(subjects) > 1:
        raise UsageError(
            f"--plan {plan} is for one model, and {len(subjects)} are compared",
            hint="compare one model at a time with --plan, or leave it out",
        )


def _choose_targets(targets: Sequence[str], more: Sequence[str]) -> tuple[str, ...]:
    """Returns the targets in the table's order, with further ones; unknown names are refused at once."""
    wanted = {*targets, *more}
    for name in sorted(wanted):
        get_target(name)
    return tuple(name for name in target_names() if name in wanted)
