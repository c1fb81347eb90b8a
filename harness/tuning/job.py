"""What is done with the artifacts of a search: trials, the measurement after them, the artifact to be shipped."""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BuildFailedError, LimitNotMetError
from modelwright.core.files import hash_json
from modelwright.core.records.artifact import Artifact
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.tuned import Goal, Tuned
from modelwright.harness.formatting import count_noun, shorten
from modelwright.harness.meters.host_energy import Meter, find_meter
from modelwright.harness.progress import Progress
from modelwright.harness.results.assemble import describe_environment
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.runner import MeasureSettings
from modelwright.harness.tuning.budget import Budget
from modelwright.harness.tuning.cost import Cost, choose_cost
from modelwright.harness.tuning.final import measure_finals, settle_finals
from modelwright.harness.tuning.race import Plan, Race
from modelwright.harness.tuning.record import Configuration, Final, FinalRole, Trial, Tuning
from modelwright.harness.tuning.runners import Stable
from modelwright.harness.tuning.search import Search
from modelwright.harness.tuning.sizes import rank_sizes
from modelwright.harness.tuning.space import Space, list_loads
from modelwright.harness.tuning.study import Study
from modelwright.harness.tuning.wording import describe_found, describe_trial
from modelwright.harness.tuning.writing import write_tuning
from modelwright.profiles.schema import Profile
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.tuned import deliver_tuned
from modelwright.targets.readiness import find_distributions, package_versions
from modelwright.targets.table import get_target

BEST = "best"
"""The folder of the artifact that is to be shipped."""
_FINAL_EFFORT = get_effort("standard")
_SIZE_UNIT = "bytes"
_LINE = 200
"""Characters of a line in a manifest."""


@dataclass(kw_only=True)
class Job:
    """A search over built artifacts.

    Attributes:
        folder: Of everything that it writes.
        source: The model, for people.
        goal: What is to be better.
        budget: Of the trials.
        host: This machine.
        profile: What is known of it, its power figures among that.
        exported: The FP32 model.
        evidence: The samples that judge what is delivered.
        artifacts: By name; the first one's defaults are what everything is held against.
        threads: That may be used at most.
        batch: Samples an inference.
        seed: Of the order of turns and of the search.
        tell: Told what is going on.
    """

    folder: Path
    source: str
    goal: Goal
    budget: Budget
    host: Profile
    profile: Profile
    exported: ExportedModel
    evidence: Evidence
    artifacts: Mapping[str, Artifact]
    threads: int
    batch: int
    seed: int
    tell: Progress
    _notes: list[str] = field(default_factory=list)

    def run(self) -> Tuning:
        """Searches, measures anew, delivers, and writes down what was found; also where it is interrupted.

        Raises:
            ModelwrightError: Nothing runs, or what was found cannot be delivered or written.
        """
        if self.goal == "size":
            return self._run_sizes()
        with self._metered() as meter:
            cost = choose_cost(self.goal, self.profile, self.host, meter, self.batch)
            space = self._make_space()
            study = Study(self.folder, self._make_key(space), space, self.seed)
            stable = Stable(
                artifacts=self.artifacts,
                settings=MeasureSettings(effort=_FINAL_EFFORT, batch=self.batch, seed=self.seed, device="cpu"),
                meter=meter,
            )
            found = self._begin(space.size, cost, "it was interrupted")
            try:
                stopped = self._search(space, study, stable, cost)
                found = replace(found, trials=tuple(study.trials), stopped=stopped)
                found = self._finish(found, space, stable, cost)
            finally:
                if not found.trials:
                    found = replace(found, trials=tuple(study.trials))
                write_tuning(self.folder, found)
        return found

    def _begin(self, size: int, cost: Cost, stopped: str) -> Tuning:
        return Tuning(
            timestamp=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            source=self.source,
            goal=self.goal,
            unit=cost.unit,
            estimated=cost.estimated,
            environment=describe_environment(self.host),
            space=size,
            trials=(),
            stopped=stopped,
            sentence="The search has not come to its end; the same command goes on with it.",
        )

    @contextlib.contextmanager
    def _metered(self) -> Iterator[Meter | None]:
        meter = find_meter() if self.goal == "energy" else None
        with contextlib.nullcontext() if meter is None else meter:
            yield meter

    def _make_space(self) -> Space:
        records = {name: get_target(artifact.manifest.target).record for name, artifact in self.artifacts.items()}
        return Space(
            settings={name: record.settings for name, record in records.items()},
            runtimes={name: record.runtime for name, record in records.items()},
            loads=list_loads(self.goal, self.threads),
        )

    def _make_key(self, space: Space) -> str:
        """Hashes all that decides what a trial is worth."""
        return hash_json(
            {
                "artifacts": {name: artifact.manifest.key for name, artifact in self.artifacts.items()},
                "goal": self.goal,
                "batch": self.batch,
                "loads": [list(load) for load in space.loads],
                "settings": {
                    name: [[option.name, list(option.candidates)] for option in options]
                    for name, options in space.settings.items()
                },
                "device": describe_environment(self.host).device,
                "versions": find_versions([artifact.manifest.target for artifact in self.artifacts.values()]),
            }
        )

    def _search(self, space: Space, study: Study, stable: Stable, cost: Cost) -> str:
        earlier = f", {count_noun(len(study.trials), 'trial')} of before" if study.trials else ""
        self.tell.start("search", f"searching for {self.goal} among {space.size:,} ways to run it{earlier}")
        race = Race(open=stable.open, cost_of=cost.of_window, plan=Plan(), seed=self.seed + len(study.trials))
        search = Search(
            space=space, study=study, race=race, check=stable.check, budget=self.budget, tell=self._tell_trial
        )
        try:
            stopped = search.run()
        finally:
            race.close()
        self.tell.finish("search", f"{count_noun(len(study.trials), 'trial')}: {stopped}")
        return stopped

    def _tell_trial(self, trial: Trial, search: Search) -> None:
        text = f"trial {trial.number}: {describe_trial(trial)}"
        if trial.outcome in ("start", "better"):
            self.tell.finish("trial", text)
        else:
            self.tell.say("search", text)
        if self.budget.seconds is not None:
            self.tell.advance("search", min(100, round(100 * search.spent_s / self.budget.seconds)), 100)
        elif self.budget.trials is not None:
            self.tell.advance("search", len(search.study.trials), self.budget.trials)

    def _finish(self, found: Tuning, space: Space, stable: Stable, cost: Cost) -> Tuning:
        """Measures what was found anew and delivers it; where it cannot be, what was best before it."""
        start = space.default()
        winners = [trial.configuration for trial in found.trials if trial.outcome in ("start", "better")]
        for chosen in reversed(winners):
            finals = self._measure_anew(start, space.default(chosen.artifact), chosen, stable, cost)
            settled = settle_finals(finals) if finals else Final(role="start", configuration=start)
            told = replace(found, finals=finals, best=settled.configuration)
            told = replace(told, changed=settled.role != "start", sentence=describe_found(told, settled))
            try:
                self._deliver(told, settled)
            except (BuildFailedError, LimitNotMetError) as error:
                if settled.configuration.key == start.key:
                    raise
                self._notes.append(f"{settled.configuration.describe()} is not delivered: {error.message}")
                continue
            return replace(told, notes=tuple(self._notes))
        raise AssertionError("the first trial is the start, which is delivered or raises")

    def _measure_anew(
        self, start: Configuration, defaults: Configuration, chosen: Configuration, stable: Stable, cost: Cost
    ) -> tuple[Final, ...]:
        if chosen.key == start.key:
            return ()
        self.tell.start("final", f"measuring {chosen.describe()} anew beside the defaults")
        finals = measure_finals(
            start,
            defaults,
            chosen,
            stable.open,
            cost.of_window,
            _FINAL_EFFORT,
            seed=self.seed + 1,
            on_round=lambda done, total: self.tell.advance("final", done, total),
        )
        self.tell.finish("final", f"{count_noun(_FINAL_EFFORT.total_rounds, 'round')} measured anew")
        return finals

    def _deliver(self, found: Tuning, settled: Final) -> None:
        configuration = settled.configuration
        ratio = settled.over_start if settled.over_defaults is None else settled.over_defaults
        over = self._name_defaults(found.finals, settled)
        self.tell.start("deliver", f"proving {configuration.describe()}")
        artifact = deliver_tuned(
            self.artifacts[configuration.artifact],
            self.folder / BEST,
            Tuned(
                goal=self.goal,
                threads=configuration.threads,
                requests=configuration.requests,
                options=configuration.options,
                ratio=None if ratio is None else ratio.ratio,
                ci95=None if ratio is None else ratio.ci95,
                over=None if over is None else shorten(over, _LINE),
                trials=len(found.trials),
                estimated=found.estimated,
                device=shorten(found.environment.device, _LINE),
                versions=find_versions([self.artifacts[configuration.artifact].manifest.target]),
                created=found.timestamp,
            ),
            self.exported,
            self.evidence,
            self.host.machine(),
            lambda text: self.tell.say("deliver", text),
        )
        self.tell.finish("deliver", f"{artifact.directory}: {configuration.describe()}")

    @staticmethod
    def _name_defaults(finals: Sequence[Final], settled: Final) -> str | None:
        """Returns the defaults that the ratio in the manifest is over."""
        if settled.over_start is None:
            return None
        roles: tuple[FinalRole, ...] = ("own defaults", "start") if settled.over_defaults is not None else ("start",)
        by_role = {final.role: final for final in finals}
        return next(by_role[role].configuration.describe() for role in roles if role in by_role)

    def _run_sizes(self) -> Tuning:
        """Delivers the smallest artifact; nothing has to be measured for it."""
        trials, best = rank_sizes(self.artifacts)
        found = replace(
            self._begin(len(trials), Cost(unit=_SIZE_UNIT, of_window=lambda _window, _how: 0.0), "all were weighed"),
            trials=trials,
            best=best,
            changed=best.key != trials[0].configuration.key,
        )
        settled = Final(role="found" if found.changed else "start", configuration=best)
        found = replace(found, sentence=describe_found(found, settled))
        self._deliver(found, settled)
        write_tuning(self.folder, found)
        return found


def find_versions(targets: Sequence[str]) -> dict[str, str]:
    """Returns package -> version of what runs these targets here."""
    packages = [package for target in targets for package in get_target(target).record.run_packages]
    return package_versions(*find_distributions(packages))
