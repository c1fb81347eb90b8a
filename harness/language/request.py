"""What a comparison of language artifacts is to be of, checked as far as that goes without running anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modelwright.harness.language.choices import (
    Chosen,
    choose_baseline,
    choose_targets,
    read_build_options,
    read_run_settings,
)
from modelwright.harness.language.workload import EVALUATION_TOKENS, LENGTHS, NEW_TOKENS
from modelwright.harness.run.effort import Effort, get_effort
from modelwright.harness.run.measure_artifacts import require_threads
from modelwright.profiles import detect_host, find_region, load_profile, require_fit
from modelwright.profiles.grid import GridRegion
from modelwright.profiles.schema import Profile


@dataclass(frozen=True, kw_only=True)
class LanguageRequest:
    """A comparison that is to be made.

    Attributes:
        source: The transformers folder or the GGUF file, as the user wrote it.
        samples: File of texts.
        evaluation: File of texts that only judge; None for a part of `samples`.
        tasks: Task files of questions with choices, which only judge.
        targets: In the order to build, the baseline first.
        named: Those that the user asked for.
        baseline: Computes in FP32: quality and speed are held against it.
        threads: Of every runtime.
        batch: Prompts at once in the offline part; 1 for none.
        new_tokens: Of each answer.
        lengths: Of prompts whose first token is timed.
        evaluation_limit: Judge on at most this many texts.
        evaluation_tokens: Judge on at most this many tokens.
        max_increase: What perplexity may grow by, as a share; None for no limit.
        effort: Launches and rounds.
        seed: Of the order of turns.
        profile: The machine the numbers are for.
        host: This machine.
        region: Of the grid, for carbon.
        options: Target -> build options.
        settings: Target -> settings of its runtime.
        overwrite: Replace what is there.
        fresh: Export again although nothing that can be seen has changed.
        low_memory: While the export is checked, hold the weights of one module at a time.
        trust: Read pickled weights, as weights alone.
    """

    source: str
    samples: str
    evaluation: str | None
    tasks: tuple[str, ...]
    targets: tuple[str, ...]
    named: tuple[str, ...]
    baseline: str
    threads: int
    batch: int
    new_tokens: int
    lengths: tuple[int, ...]
    evaluation_limit: int
    evaluation_tokens: int
    max_increase: float | None
    effort: Effort
    seed: int
    profile: Profile
    host: Profile
    region: GridRegion
    options: Chosen
    settings: Chosen
    overwrite: bool
    fresh: bool
    low_memory: bool
    trust: bool


def make_language_request(
    source: str | Path,
    *,
    samples: str | Path,
    evaluation: str | Path | None = None,
    tasks: Sequence[str | Path] = (),
    targets: Sequence[str] | None = None,
    baseline: str | None = None,
    threads: int | None = None,
    batch: int = 1,
    new_tokens: int = NEW_TOKENS,
    lengths: Sequence[int] = LENGTHS,
    evaluation_limit: int = 512,
    evaluation_tokens: int = EVALUATION_TOKENS,
    max_increase: float | None = None,
    effort: str = "standard",
    seed: int = 0,
    profile: str = "host",
    region: str | None = None,
    options: Sequence[str] = (),
    settings: Sequence[str] = (),
    overwrite: bool = False,
    fresh: bool = False,
    low_memory: bool = False,
    trust: bool = False,
) -> LanguageRequest:
    """Reads what a comparison is to be of; see `LanguageRequest`.

    Raises:
        UsageError: Unknown target, effort, option or setting; more threads than the machine has.
        BadInputError: Unknown profile or region.
        MeasurementInvalidError: The profile is of another machine.
    """
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    base = choose_baseline(baseline, host.machine())
    names = choose_targets(targets, base, chosen.machine())
    require_fit(chosen, host)
    require_threads(threads or 1, host)
    return LanguageRequest(
        source=str(source),
        samples=str(samples),
        evaluation=None if evaluation is None else str(evaluation),
        tasks=tuple(map(str, tasks)),
        targets=names,
        named=tuple(targets or ()),
        baseline=base,
        threads=threads or 1,
        batch=batch,
        new_tokens=new_tokens,
        lengths=tuple(sorted(set(lengths))),
        evaluation_limit=evaluation_limit,
        evaluation_tokens=evaluation_tokens,
        max_increase=max_increase,
        effort=get_effort(effort),
        seed=seed,
        profile=chosen,
        host=host,
        region=find_region(region or chosen.grid_region),
        options=read_build_options(options, names),
        settings=read_run_settings(settings, names),
        overwrite=overwrite,
        fresh=fresh,
        low_memory=low_memory,
        trust=trust,
    )
