"""Measures artifacts that generate and were built before, here: on the machine that they are for."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, MeasurementInvalidError, UsageError
from modelwright.core.files import write_json
from modelwright.core.process.child import run_in_child
from modelwright.core.records.codec import encode, read_record
from modelwright.core.records.language_artifact import (
    PROMPTS,
    LanguageArtifact,
    PromptSet,
    open_language_artifact,
    verify_language_files,
)
from modelwright.core.scratch import scratch_directory
from modelwright.harness.formatting import count_noun
from modelwright.harness.language.assembling import Context, assemble_language
from modelwright.harness.language.choices import read_run_settings
from modelwright.harness.language.measuring import measure_language_artifacts
from modelwright.harness.language.record import LanguageComparison
from modelwright.harness.language.runner import Generating
from modelwright.harness.language.workload import NEW_TOKENS, TOKENIZING_LIMIT_S, Wanted
from modelwright.harness.progress import Progress, Undisturbed
from modelwright.harness.run.effort import get_effort
from modelwright.harness.run.measure_artifacts import rename_duplicates, require_threads
from modelwright.profiles import detect_host, find_region, load_profile
from modelwright.profiles.schema import Profile
from modelwright.targets.language.table import BASELINE


def measure_language(
    directories: Sequence[str | Path],
    *,
    samples: str | Path | None = None,
    baseline: str | None = None,
    effort: str = "standard",
    profile: str = "host",
    threads: int | None = None,
    batch: int = 1,
    new_tokens: int | None = None,
    settings: Sequence[str] = (),
    region: str | None = None,
    max_increase: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> LanguageComparison:
    """Measures artifacts of one language model side by side; the quality is that of their manifests.

    Args:
        directories: Artifact folders.
        samples: Texts to generate from; None for the prompts packed with the first artifact.
        baseline: Target that ratios are over; None for PyTorch's FP32 if it is there, else the first artifact.
        effort: `quick`, `standard` or `strict`.
        profile: The machine the numbers are for; refused when this is another one.
        threads: Of every runtime; None for 1.
        batch: Prompts at once in the offline part; 1 for none.
        new_tokens: Of each answer; None for as many as the packed prompts say.
        settings: `NAME=VALUE` of runtimes' settings, or `TARGET:NAME=VALUE` for one target.
        region: Of the grid, for carbon; None for the profile's.
        max_increase: What perplexity may grow by to be shipped, as a share.
        seed: Of the order of turns.
        progress: Told what is going on.

    Raises:
        UsageError: The baseline is not among the artifacts, or more threads than this machine has.
        BadInputError: Not artifacts, of different models, changed since they were built, or texts that do not fit.
        MeasurementInvalidError: The profile is of another machine, or nothing could be measured.
    """
    tell = Undisturbed(progress)
    opened = [open_language_artifact(Path(directory)) for directory in directories]
    _require_one_model(opened)
    names = rename_duplicates([artifact.manifest.target for artifact in opened])
    artifacts = dict(zip(names, opened, strict=True))
    base = baseline or (BASELINE if BASELINE in names else names[0])
    if base not in names:
        raise UsageError(f"the baseline {base} is not among the artifacts ({', '.join(names)})", hint="give its folder")
    host = detect_host()
    chosen = host if profile == "host" else load_profile(profile)
    require_threads(threads or 1, host)
    options = read_run_settings(settings, list(dict.fromkeys(artifact.manifest.target for artifact in opened)))
    context = Context(
        baseline=base,
        profile=chosen,
        host=host,
        region=find_region(region or chosen.grid_region),
        threads=threads or 1,
        batch=batch,
        effort=get_effort(effort),
        seed=seed,
        settings=options,
        max_increase=max_increase,
    )
    with scratch_directory() as scratch:
        prompts = Path(scratch) / PROMPTS
        _place_prompts(opened[0], samples, new_tokens, prompts)
        tell.start("measure", f"{count_noun(len(artifacts), 'artifact')} generating in turns")
        measurements = measure_language_artifacts(
            artifacts,
            Generating(prompts=prompts, threads=threads or 1, batch=batch, options=options),
            context.effort,
            chosen,
            host,
            seed=seed,
            on_round=lambda done, total: tell.advance("measure", done, total),
            on_event=lambda text: tell.say("measure", text),
        )
        asked = _read_prompts(prompts)
    failures = [each.failure for each in measurements.by_name.values() if each.failure is not None]
    tell.finish("measure", f"{count_noun(len(names) - len(failures), 'artifact')} measured", ok=not failures)
    if len(failures) == len(names):
        raise failures[0]
    manifest = opened[0].manifest
    return assemble_language(
        context,
        model=manifest.model,
        texts=manifest.texts,
        asked=asked,
        artifacts=artifacts,
        reused={},
        measurements=measurements,
        warnings=_warn_of_others(artifacts, host),
    )


def _place_prompts(artifact: LanguageArtifact, samples: str | Path | None, new_tokens: int | None, path: Path) -> None:
    """Writes what is to be generated from: the user's texts, else what is packed with the artifact."""
    if samples is not None:
        model = artifact.manifest.model
        wanted = Wanted(context=model.context_length, vocabulary=model.vocab_size, new_tokens=new_tokens or NEW_TOKENS)
        run_in_child(
            "modelwright.harness.language.tokenizing:prepare_prompts_in_child",
            {
                "model": str(artifact.directory.absolute()),
                "samples": str(samples),
                "wanted": encode(wanted),
                "out": str(path),
            },
            purpose="tokenizing texts",
            crash_error=BadInputError,
            timeout_s=TOKENIZING_LIMIT_S,
        )
        return
    verify_language_files(artifact)
    shutil.copyfile(artifact.directory / PROMPTS, path)
    packed = _read_prompts(path)
    if new_tokens is not None:
        longest = max(map(len, packed.prompts)) + new_tokens
        if longest > artifact.manifest.model.context_length:
            raise MeasurementInvalidError(
                f"--new-tokens {new_tokens}: the model's context holds {artifact.manifest.model.context_length:,} "
                f"tokens, and prompt and answer would have {longest:,}",
                hint="ask for fewer",
            )
        write_json(path, encode(replace(packed, new_tokens=new_tokens)))


def _read_prompts(path: Path) -> PromptSet:
    return read_record(PromptSet, path, what="the prompts of a measurement")


def _require_one_model(artifacts: Sequence[LanguageArtifact]) -> None:
    models = [artifact.manifest.model.files for artifact in artifacts]
    if any(model != models[0] for model in models):
        raise BadInputError(
            "the artifacts are of different FP32 models: a comparison of their speeds would mislead",
            hint="measure them in calls of their own",
        )


def _warn_of_others(artifacts: Mapping[str, LanguageArtifact], host: Profile) -> list[str]:
    """Returns a sentence about artifacts that were judged on another machine, whose kernels may round otherwise."""
    here = replace(host.machine(), name="this machine")
    others = [
        name
        for name, artifact in artifacts.items()
        if artifact.manifest.proof is not None and artifact.manifest.proof.host != here
    ]
    if not others:
        return []
    return [f"{', '.join(others)}: quality was taken on another machine, and is not taken anew by `measure`."]
