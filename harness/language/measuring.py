"""Measures artifacts that generate, in turns: all alive together, an answer a turn, in rounds of several launches.

The schedule is that of every other measurement (`run/interleave.py`); what differs is what a turn is.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from modelwright.core.errors import BadInputError, MeasurementInvalidError, ModelwrightError, ToolchainMissingError
from modelwright.core.faults import as_error
from modelwright.core.memory import read_available_bytes
from modelwright.core.records.codec import encode
from modelwright.core.records.language_artifact import LanguageArtifact, verify_language_files
from modelwright.harness.formatting import count_noun
from modelwright.harness.language.memory import require_room
from modelwright.harness.language.runner import (
    Finished,
    Generating,
    GenerationRunner,
    GenerationWindow,
    Opened,
)
from modelwright.harness.meters.host_energy import Meter, find_meter, measure_idle_power_w
from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import interleave
from modelwright.profiles.fit import require_fit
from modelwright.profiles.schema import Profile
from modelwright.targets.language.table import get_target, target_names
from modelwright.targets.readiness import check_versions


@dataclass(kw_only=True)
class Measured:
    """The raw result of one artifact; statistics are derived elsewhere.

    Attributes:
        opened: What loading told, the first time; None when it failed.
        finished: Memory and what really ran, after the first launch; None when it failed.
        windows: Round -> turn, of all launches.
        failure: Why there are no or too few turns.
    """

    opened: Opened | None = None
    finished: Finished | None = None
    windows: dict[int, GenerationWindow] = field(default_factory=dict)
    failure: ModelwrightError | None = None


@dataclass(frozen=True, kw_only=True)
class Measurements:
    """All raw results of one run, by name, and what the meter was."""

    by_name: Mapping[str, Measured]
    meter: Meter | None = None
    idle_power_w: float | None = None


def measure_language_artifacts(
    artifacts: Mapping[str, LanguageArtifact],
    how: Generating,
    effort: Effort,
    profile: Profile,
    host: Profile,
    *,
    seed: int,
    on_round: Callable[[int, int], None],
    on_event: Callable[[str], None],
) -> Measurements:
    """Measures artifacts together.

    Args:
        artifacts: Name -> artifact.
        how: What is generated, and with what.
        effort: Launches and rounds.
        profile: The machine that the numbers are for; refused when the host is another one.
        host: The detected machine.
        seed: Of the order of turns.
        on_round: Called with finished rounds and all rounds.
        on_event: Takes a line about what is going on.

    Raises:
        MeasurementInvalidError: The host is not the profile's machine, or its memory does not hold all artifacts.
    """
    require_fit(profile, host)
    require_room((artifact.manifest.size_bytes for artifact in artifacts.values()), read_available_bytes())
    results = {name: Measured() for name in artifacts}
    with contextlib.ExitStack() as stack:
        meter, idle_power_w = _open_meter(stack, on_event)
        runners = []
        for name, artifact in artifacts.items():
            with _costing_the_row(results[name], name):
                require_runnable(name, artifact, host)
                verify_language_files(artifact)
                runners.append(GenerationRunner(name, artifact, how, meter=meter))
        for launch in range(effort.launches):
            alive = [runner for runner in runners if results[runner.name].failure is None]
            first = launch % max(1, len(alive))  # what is loaded later is slower
            _launch([*alive[first:], *alive[:first]], launch, effort, seed, results, on_round, on_event)
    for name, artifact in artifacts.items():
        with _costing_the_row(results[name], name):
            verify_language_files(artifact)  # its files may be mapped: what changed meanwhile was measured
    drop_unequal(results)
    return Measurements(by_name=results, meter=meter, idle_power_w=idle_power_w)


def require_runnable(name: str, artifact: LanguageArtifact, host: Profile) -> None:
    """Checks that this machine has what an artifact needs, before anything of it is loaded.

    Raises:
        BadInputError: Its target is one that this version does not know.
        ToolchainMissingError: Its runtime is not installed, or a package of another version.
    """
    manifest = artifact.manifest
    if manifest.target not in target_names():
        raise BadInputError(
            f"{artifact.directory} is of target {manifest.target!r}, which this version does not know",
            hint="build it again, or update modelwright",
        )
    readiness = get_target(manifest.target).check_run(host.machine())
    if not readiness.ok:
        raise ToolchainMissingError(f"{name} cannot run here: {readiness.reason}", hint=readiness.hint)
    fit = check_versions(encode(manifest.requires).get("packages", {}))
    if not fit.ok:
        raise ToolchainMissingError(f"{name} does not run here: {fit.reason}", hint=fit.hint)


def _launch(
    runners: Sequence[GenerationRunner],
    launch: int,
    effort: Effort,
    seed: int,
    results: Mapping[str, Measured],
    on_round: Callable[[int, int], None],
    on_event: Callable[[str], None],
) -> None:
    """Loads artifacts, each in a new process, and lets them take their turns."""
    again = f", launch {launch + 1} of {effort.launches}" if launch else ""
    with contextlib.ExitStack() as alive:
        ready = []
        for runner in runners:
            on_event(f"loading {runner.name}{again}")
            measured = results[runner.name]
            with _costing_the_row(measured, runner.name):
                opened = alive.enter_context(runner).open()
                measured.opened = measured.opened or opened
                ready.append(runner)
        if ready:
            on_event(f"{count_noun(len(ready), 'artifact')} generating{' in turns' if len(ready) > 1 else ''}{again}")
        found = interleave(ready, effort, seed=seed, launch=launch, on_round=on_round)
        for runner in ready:
            measured, series = results[runner.name], found[runner.name]
            for index, window in series.windows.items():
                assert isinstance(window, GenerationWindow)
                measured.windows[index] = window
            measured.failure = measured.failure or series.failure
            if measured.failure is None and measured.finished is None:
                with _costing_the_row(measured, runner.name):
                    measured.finished = runner.finish()


def drop_unequal(results: Mapping[str, Measured]) -> None:
    """Refuses times of other work: in a round all read the same prompt and write the same number of tokens.

    What most did is taken for right; who did otherwise fails with its reason.
    """
    rounds = sorted({index for measured in results.values() for index in measured.windows})
    for index in rounds:
        work = {
            name: (measured.windows[index].prompt_tokens, len(measured.windows[index].tokens))
            for name, measured in results.items()
            if index in measured.windows
        }
        usual, _ = Counter(work.values()).most_common(1)[0]
        for name, (read, written) in work.items():
            if (read, written) != usual:
                results[name].failure = results[name].failure or MeasurementInvalidError(
                    f"{name} read {read} and wrote {written} tokens in round {index + 1}, where others read {usual[0]} "
                    f"and wrote {usual[1]}: times of unequal work do not compare",
                    hint="report this; measure it alone to see its own times",
                )


@contextlib.contextmanager
def _costing_the_row(measured: Measured, name: str) -> Iterator[None]:
    """Keeps whatever is raised as the reason why there is nothing of an artifact: the others go on."""
    try:
        yield
    except Exception as error:
        measured.failure = measured.failure or as_error(error, f"measuring {name}")


def _open_meter(stack: contextlib.ExitStack, tell: Callable[[str], None]) -> tuple[Meter | None, float | None]:
    """Starts the meter of the CPU or the board and meters idle power; a fault of it costs its figures."""
    try:
        meter = find_meter()
        if meter is None:
            return None, None
        stack.enter_context(meter)
        tell(f"metering idle power with {meter.name}")
        return meter, measure_idle_power_w(meter)
    except Exception as error:
        tell(f"no energy is metered: {as_error(error, 'starting the meter').message}")
        return None, None
