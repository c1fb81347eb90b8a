"""Builds artifacts that generate text: in a child, into a staging folder, proved in another child, then named.

An artifact whose inputs have not changed is not built again, and one that was judged on the same text is not judged
again.
"""

from __future__ import annotations

import datetime as dt
import platform
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import hash_json, write_json
from modelwright.core.memory import read_available_bytes
from modelwright.core.path_names import drop_folders
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.artifact import BuildHost, Requires
from modelwright.core.records.artifact_files import measure_size
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.language import LanguageModel
from modelwright.core.records.language_artifact import (
    PROMPTS,
    LanguageArtifact,
    LanguageManifest,
    open_language_artifact,
    verify_language_files,
    write_language_manifest,
)
from modelwright.core.scratch import scratch_directory, staged_directory
from modelwright.harness.language.bench import TIMEOUT_S, WORKER, Bench, require_ready
from modelwright.harness.language.limits import describe_increase, find_loss
from modelwright.harness.language.memory import require_build_memory
from modelwright.harness.language.proving import prove, prove_again
from modelwright.targets.building.proof_files import hash_built, require_unchanged
from modelwright.targets.building.replacing import require_own
from modelwright.targets.language.contract import LanguageTarget
from modelwright.targets.language.table import get_target
from modelwright.targets.readiness import find_distributions, package_versions

_REPAIRS = 2
"""Times that a recipe is asked for less, where the judging text shows more than the tuning texts did."""
_LEAST_CUT = 0.8
"""Of the limit, at most, the next time: less would change nothing."""


def build(
    name: str, bench: Bench, directory: Path, *, overwrite: bool, report: Progress
) -> tuple[LanguageArtifact, bool]:
    """Builds one artifact, or finds that the one in `directory` is still right.

    Args:
        name: Of its target.
        bench: What it is built from and judged by. The reference target is to be built first.
        directory: The artifact's folder.
        overwrite: Replace an artifact that was built from other inputs.
        report: Takes lines.

    Returns:
        The artifact, and whether it was there already.

    Raises:
        BadInputError: The folder holds something else, or the texts are too few to calibrate on.
        ToolchainMissingError: The target cannot be built here.
        BuildFailedError: It cannot be built, the memory is too small for it, it does not run, or does not follow FP32.
        LimitNotMetError: It loses more than the user allows.
    """
    target = get_target(name)
    require_ready(name, target.check_build(bench.machine))
    unfit = target.check_model(bench.record)
    if not unfit.ok:
        raise BadInputError(f"{name} cannot be built: {unfit.reason}", hint=unfit.hint)
    if target.record.needs_calibration and not bench.workload.calibration:
        raise BadInputError(
            f"{name} needs text to calibrate on besides what judges it; the file holds too little",
            hint="give more texts: some thousand tokens",
        )
    key = _make_key(target, bench)
    if directory.exists():
        reusable = _find_reusable(directory, key)
        if isinstance(reusable, LanguageArtifact):
            return prove_again(target, reusable, bench, report), True
        if not overwrite:
            raise BadInputError(f"{directory} exists and {reusable}", hint="choose another --out, or add --overwrite")
        require_own(directory)
    require_build_memory(target.record, bench.record, read_available_bytes())
    with staged_directory(directory) as staging:
        manifest = _build_within(target, bench, staging, key, report)
        write_language_manifest(staging, manifest)
    return open_language_artifact(directory), False


def _build_within(target: LanguageTarget, bench: Bench, staging: Path, key: str, report: Progress) -> LanguageManifest:
    """Builds files that lose no more than they may, and proves them.

    Where the judging text shows more than the limit, a recipe that keeps to one is asked for less on tuning texts, once
    or twice. That text has then had a say in how many bits there are: the manifest tells.
    """
    name = target.record.name
    limit, failed = bench.limit, None
    repairs: list[str] = []
    built: list[Mapping[str, str]] = []
    while True:
        try:
            manifest = _build_once(target, bench, limit, staging, key, report)
        except BuildFailedError as error:
            raise failed or error from error  # what keeps less cannot be had: the first failure is what counts
        if manifest.files in built:
            assert failed is not None, "there was one before"
            raise failed
        proof = prove(target, manifest, staging, bench, report)
        loss = find_loss(name, proof, is_float=target.record.is_float)
        if loss is None:
            require_unchanged(name, staging, manifest.files)
            return replace(manifest, proof=proof, proof_reason=None, notes=(*manifest.notes, *repairs))
        allowed = proof.max_increase
        can_repair = target.record.uses_limit and limit and allowed and proof.increase.value > allowed
        if not can_repair or len(repairs) == _REPAIRS:
            raise loss
        assert limit is not None
        assert allowed is not None
        limit *= min(_LEAST_CUT, allowed / proof.increase.value)
        failed = loss
        built.append(manifest.files)
        again = f"{describe_increase(proof.increase)} on the judging text: built anew for {limit:.2%} on tuning texts"
        repairs.append(again)
        report(f"{name}: {again}")
        for path in staging.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _build_once(
    target: LanguageTarget, bench: Bench, limit: float | None, staging: Path, key: str, report: Progress
) -> LanguageManifest:
    """Builds files into an empty folder; the proof is still to come.

    Args:
        target: That builds.
        bench: What it is built from.
        limit: What perplexity may grow by on tuning texts, for recipes that keep to one.
        staging: The folder.
        key: Hash of all that decides the files.
        report: Takes lines.
    """
    name = target.record.name
    with scratch_directory(staging.parent) as scratch:
        started = time.monotonic()
        built = run_in_child(
            f"{WORKER}:build_in_child",
            {
                "target": name,
                "model": str(bench.model.absolute()),
                "record": encode(bench.record),
                "source": str(bench.source.absolute()),
                "directory": str(staging.absolute()),
                "workload": str(bench.workload_path.absolute()),
                "threads": bench.threads,
                "options": dict(bench.options.get(name, {})),
                "limit": limit,
                "scratch": str(Path(scratch).absolute()),
                "shared": str(bench.shared.absolute()),
            },
            purpose=f"building {name}",
            timeout_s=TIMEOUT_S,
            progress=report,
        )
    build_s = time.monotonic() - started
    _add_tokenizer(bench, staging)
    files = hash_built(name, staging)
    if built["model_file"] not in files:
        raise BuildFailedError(f"building {name} left no file {built['model_file']}")
    return LanguageManifest(
        target=name,
        model_file=built["model_file"],
        files=files,
        size_bytes=measure_size(staging),
        model=replace(bench.record, source=_name_source(bench.record)),
        texts=bench.workload.described,
        machine=bench.machine,
        requires=decode(Requires, built["requires"]),
        recipe=built["recipe"],
        versions=built["versions"] | package_versions("modelwright"),
        build_host=BuildHost(
            architecture=bench.host.architecture,
            system=f"{platform.system()} {platform.release()}",
            python=platform.python_version(),
        ),
        build_s=round(build_s, 3),
        proof=None,
        proof_reason="not yet judged",
        notes=tuple(built["notes"]),
        key=key,
        created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
    )


def _make_key(target: LanguageTarget, bench: Bench) -> str:
    """Hashes all that decides an artifact's files."""
    record, texts = target.record, bench.workload.described
    parts = (texts.calibration, texts.tuning)
    return hash_json(
        {
            "target": record.name,
            "recipe_version": record.recipe_version,
            "model": encode(bench.record.files),
            "tokenizer": encode(bench.record.tokenizer_files),
            "source": bench.record.source.sha256 if record.uses_source else None,
            "texts": [part.sha256 if part else None for part in parts] if record.uses_tokens else None,
            "limit": bench.limit if record.uses_limit else None,
            "machine": {name: value for name, value in encode(bench.machine).items() if name not in ("name", "gpu")},
            "options": dict(bench.options.get(record.name, {})),
            "packages": package_versions("modelwright", *find_distributions(record.build_packages)),
        }
    )


def _find_reusable(directory: Path, key: str) -> LanguageArtifact | str:
    """Returns the artifact in a folder, or why it cannot be used again."""
    try:
        artifact = open_language_artifact(directory)
        if artifact.manifest.key != key:
            return "was not built from these inputs"
        verify_language_files(artifact)
    except BadInputError as error:
        return f"cannot be used again: {error.message}"
    return artifact


def _add_tokenizer(bench: Bench, staging: Path) -> None:
    """Copies the tokenizer's files beside the runtime's: who serves the artifact needs nothing else.

    What the target wrote itself, such as a config that says what its weights are, stays.
    """
    for file in bench.record.tokenizer_files:
        if not (staging / file).exists():
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(bench.model / file, staging / file)
    write_json(staging / PROMPTS, encode(bench.workload.asked))


def _name_source(record: LanguageModel) -> Any:
    """Returns the source without the folders that it lay in: an artifact is given on."""
    return replace(record.source, path=drop_folders(record.source.path))
