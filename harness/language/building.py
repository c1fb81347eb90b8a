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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError, ToolchainMissingError
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
    LanguageProof,
    open_language_artifact,
    verify_language_files,
    write_language_manifest,
)
from modelwright.core.records.machine import Machine
from modelwright.core.scratch import scratch_directory, staged_directory
from modelwright.harness.language.judging import Judgement
from modelwright.harness.language.limits import find_loss
from modelwright.harness.language.memory import require_build_memory
from modelwright.harness.language.workload import Workload
from modelwright.targets.building.proof_files import hash_built, require_unchanged
from modelwright.targets.building.replacing import require_own
from modelwright.targets.language.contract import LanguageTarget
from modelwright.targets.language.table import get_target
from modelwright.targets.readiness import Readiness, find_distributions, package_versions

_WORKER = "modelwright.harness.language.build_worker"
_TIMEOUT_S = 6 * 3600.0


@dataclass(kw_only=True)
class Bench:
    """What all artifacts of one model are built from and judged by.

    Attributes:
        model: Folder of the exported model.
        record: Of it.
        source: The transformers folder that it was exported from.
        workload: All tokens.
        workload_path: The file with them.
        reference: Folder for what FP32 makes of them.
        reference_target: Target whose artifact is that FP32.
        shared: Folder that all builds see.
        machine: That artifacts are for.
        host: This machine.
        threads: To build and judge with.
        limit: What perplexity may grow by at most, as a share; None for no limit.
        options: Target -> option -> value.
        reference_artifact: Of it, once it is there.
        referred: Whether it wrote into `reference`.
    """

    model: Path
    record: LanguageModel
    source: Path
    workload: Workload
    workload_path: Path
    reference: Path
    reference_target: str
    shared: Path
    machine: Machine
    host: Machine
    threads: int
    limit: float | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    reference_artifact: LanguageArtifact | None = None
    referred: bool = False


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
    _require(name, target.check_build(bench.machine))
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
            return _prove_again(target, reusable, bench, report), True
        if not overwrite:
            raise BadInputError(f"{directory} exists and {reusable}", hint="choose another --out, or add --overwrite")
        require_own(directory)
    require_build_memory(target.record, bench.record, read_available_bytes())
    with staged_directory(directory) as staging, scratch_directory(directory.parent) as scratch:
        started = time.monotonic()
        built = run_in_child(
            f"{_WORKER}:build_in_child",
            {
                "target": name,
                "model": str(bench.model.absolute()),
                "record": encode(bench.record),
                "source": str(bench.source.absolute()),
                "directory": str(staging.absolute()),
                "workload": str(bench.workload_path.absolute()),
                "threads": bench.threads,
                "options": dict(bench.options.get(name, {})),
                "limit": bench.limit,
                "scratch": str(Path(scratch).absolute()),
                "shared": str(bench.shared.absolute()),
            },
            purpose=f"building {name}",
            timeout_s=_TIMEOUT_S,
            progress=report,
        )
        build_s = time.monotonic() - started
        _add_tokenizer(bench, staging)
        files = hash_built(name, staging)
        if built["model_file"] not in files:
            raise BuildFailedError(f"building {name} left no file {built['model_file']}")
        manifest = LanguageManifest(
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
        proof = _prove(target, manifest, staging, bench, report)
        loss = find_loss(name, proof, is_float=target.record.is_float)
        if loss is not None:
            raise loss
        require_unchanged(name, staging, files)
        write_language_manifest(staging, replace(manifest, proof=proof, proof_reason=None))
    return open_language_artifact(directory), False


def _require(name: str, readiness: Readiness) -> None:
    if not readiness.ok:
        raise ToolchainMissingError(f"{name} cannot be built here: {readiness.reason}", hint=readiness.hint)


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


def _prove(
    target: LanguageTarget, manifest: LanguageManifest, directory: Path, bench: Bench, report: Progress
) -> LanguageProof:
    """Holds an artifact's text against FP32's; the first one asked is FP32 itself and leaves what it wrote."""
    name = target.record.name
    _require(name, target.check_run(bench.host))
    is_reference = name == bench.reference_target
    if not is_reference and not bench.referred:
        _refer(bench, report)
    told = run_in_child(
        f"{_WORKER}:judge_in_child",
        {
            "target": name,
            "directory": str(directory.absolute()),
            "files": dict(manifest.files),
            "model_file": manifest.model_file,
            "recipe": dict(manifest.recipe),
            "record": encode(manifest.model),
            "workload": str(bench.workload_path.absolute()),
            "reference": str(bench.reference.absolute()),
            "threads": bench.threads,
            "is_reference": is_reference,
        },
        purpose=f"judging {name}",
        timeout_s=_TIMEOUT_S,
        progress=report,
    )
    bench.referred |= is_reference
    judgement = encode(decode(Judgement, told))
    return decode(LanguageProof, {**judgement, **_describe_conditions(bench)})


def _refer(bench: Bench, report: Progress) -> None:
    """Has FP32 write once more: its artifact was there from an earlier run, and what it wrote then is not."""
    if bench.reference_artifact is None:
        raise BuildFailedError(
            f"nothing can be held against FP32: {bench.reference_target} did not come about",
            hint=f"see why {bench.reference_target} failed",
        )
    report(f"{bench.reference_target} writes what others are held against")
    artifact = bench.reference_artifact
    _prove(get_target(bench.reference_target), artifact.manifest, artifact.directory, bench, report)


def _describe_conditions(bench: Bench) -> dict[str, Any]:
    """Returns what a proof was taken under; one that was taken so before holds."""
    return {
        "max_increase": bench.limit,
        "reference": bench.reference_target,
        "evaluation_sha256": bench.workload.evaluation_sha256,
        "host": encode(replace(bench.host, name="this machine")),
        "threads": bench.threads,
    }


def _prove_again(
    target: LanguageTarget, artifact: LanguageArtifact, bench: Bench, report: Progress
) -> LanguageArtifact:
    """Keeps the proof of a reused artifact where text, machine and threads are the same; else renews it."""
    manifest = artifact.manifest
    # A proof of an earlier version, which did not look as closely at how it writes with its cache, is none.
    decoding = None if manifest.proof is None else manifest.proof.decoding
    proof = None if decoding is None or decoding.changed_alone is None else manifest.proof
    conditions = {**_describe_conditions(bench), "max_increase": None}
    if proof is not None and (told := {**encode(proof), "max_increase": None}) == {**told, **conditions}:
        renewed = replace(proof, max_increase=bench.limit)
    else:
        renewed = _prove(target, manifest, artifact.directory, bench, report)
        verify_language_files(artifact)
    if renewed != proof:
        kept = replace(manifest, proof=renewed, proof_reason=None, texts=bench.workload.described)
        artifact = write_language_manifest(artifact.directory, kept)
    loss = find_loss(target.record.name, renewed, is_float=target.record.is_float)
    if loss is not None:
        raise loss
    return artifact
