"""Builds artifacts: what is the same for all targets.

A build runs in a child process, into a staging folder. Another child then loads what came out, runs it on the
evaluation samples one after the other and compares it with FP32; only an artifact that follows FP32 gets a manifest
and its final name. An artifact whose inputs have not changed is not built again.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import platform
import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import UNSET
from msgspec.structs import replace

from modelwright.core.errors import (
    BadInputError,
    BuildFailedError,
    LimitNotMetError,
    ModelwrightError,
    ToolchainMissingError,
)
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.output_files import read_reference
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.path_names import drop_folders
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.artifact import (
    Artifact,
    BuildHost,
    Manifest,
    Proof,
    Requires,
    SampleProvenance,
    open_artifact,
    verify_files,
    write_manifest,
)
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE, measure_size
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.plan import ExecutedPlan, PlanChoice
from modelwright.core.records.shapes import ShapeRange, require_shapes_admit, require_shapes_fit, resolve_shapes
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.core.scratch import scratch_directory, staged_directory
from modelwright.targets.building.choices import BuildChoices
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.key import make_key
from modelwright.targets.building.limits import OverLimitError, is_held_alike, require_within
from modelwright.targets.building.proof_files import hash_built, hash_proved
from modelwright.targets.building.prove import describe_conditions, prove, prove_artifact
from modelwright.targets.building.replacing import require_own
from modelwright.targets.building.rooms import keep_within
from modelwright.targets.contract import BuildRequest, Target
from modelwright.targets.readiness import Readiness, package_versions
from modelwright.targets.table import get_target

BUILD_TIMEOUT_S = 3600.0


def build(
    target_name: str,
    exported: ExportedModel,
    evidence: Evidence,
    directory: Path,
    *,
    machine: Machine,
    host: Machine,
    fits_host: bool = False,
    threads: int = 1,
    overwrite: bool = False,
    choices: BuildChoices | None = None,
    progress: Progress | None = None,
) -> tuple[Artifact, bool]:
    """Builds one artifact, or finds that the one in `directory` is still right.

    Args:
        target_name: As in the table of targets.
        exported: The verified FP32 model.
        evidence: The samples and FP32's outputs on them.
        directory: The artifact's folder.
        machine: The machine it is for.
        host: This machine; the artifact is proved here when it can run here.
        fits_host: Whether this host is such a machine: then what is timed here may decide what is built.
        threads: That it is proved with; runtimes fuse differently by their number.
        overwrite: Replace an artifact that was built from other inputs.
        choices: Options and ranges of shapes; None for defaults.
        progress: Takes a line about what is going on.

    Returns:
        The artifact, and whether it was reused.

    Raises:
        ToolchainMissingError: This host cannot build the target.
        BadInputError: The folder exists and is not this artifact; there are too few samples; or the target needs a
            PyTorch source.
        UsageError: The ranges of shapes do not fit the model.
        BuildFailedError: The toolchain failed, crashed, or its result does not follow FP32.
        LimitNotMetError: It loses more than the user allows; nothing is left in the folder, but an artifact that was
            there already and is the right one, whose manifest then says so.
    """
    target = get_target(target_name)
    report = progress or (lambda _text: None)
    _require(target_name, target.check_build(machine))
    if target.record.needs_calibration and evidence.calibration is None:
        raise BadInputError(
            f"{target_name} needs samples to calibrate on besides those that judge it; the file holds too few",
            hint="give more, 100 or so: half of them are held back to judge",
        )
    unfit = check_source(target, exported)
    if not unfit.ok:
        raise BadInputError(f"{target_name} cannot be built: {unfit.reason}", hint=unfit.hint)
    chosen = choices or BuildChoices()
    require_shapes_fit(chosen.shapes, exported.signature)
    shapes = resolve_shapes(chosen.shapes, exported.signature, evidence.sampled_shapes, chosen.batch)
    if target.record.uses_shapes:
        require_shapes_admit(shapes, exported.signature, evidence.sampled_shapes, chosen.batch)
    plan = chosen.plan_for(target_name, exported)
    choice = _Choice(options=chosen.options_of(target_name), shapes=shapes, plan=plan)
    built_for = _Machines(machine=machine, host=host, fits_host=fits_host)
    key = make_key(
        target, exported, evidence, machine, choice.options, choice.shapes, fits_host=fits_host, plan=choice.plan
    )
    if directory.exists():
        reusable = _find_reusable(directory, key)
        if isinstance(reusable, Artifact):
            return _prove_again(reusable, exported, evidence, host, threads, report), True
        if not overwrite:
            raise BadInputError(f"{directory} exists and {reusable}", hint="choose another --out, or add --overwrite")
        require_own(directory)
    with (
        _nothing_left_over_the_limit(directory),
        staged_directory(directory) as staging,
        scratch_directory(directory.parent) as scratch,
    ):

        def attempt(limit: Limit | None) -> _Made:
            return _build_and_prove(
                target, exported, evidence, built_for, choice, limit, threads, staging, scratch, report
            )

        made, told = keep_within(evidence.limit, attempt, staging, report)
        built = made.built
        size_bytes = measure_size(staging)
        source = exported.describe_source()
        write_manifest(
            staging,
            Manifest(
                target=target_name,
                model_file=built["model_file"],
                files=made.files,
                size_bytes=size_bytes,
                signature=decode(Signature, built["signature"]),
                # An artifact is given on: its manifest says which files it was made from, not in whose home they lie.
                source=replace(source, path=drop_folders(source.path)),
                samples=_describe_samples(evidence),
                machine=machine,
                requires=decode(Requires, built["requires"]),
                recipe=built["recipe"],
                versions=built["versions"] | package_versions("modelwright"),
                build_host=BuildHost(
                    architecture=host.architecture,
                    system=f"{platform.system()} {platform.release()}",
                    python=platform.python_version(),
                ),
                build_s=round(made.build_s, 3),
                proof=made.proof,
                proof_reason=made.reason,
                notes=(*built["notes"], *told),
                key=key,
                plan=UNSET if built["plan"] is None else decode(ExecutedPlan, built["plan"]),
                created=dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            ),
        )
    return open_artifact(directory), False


@contextlib.contextmanager
def _nothing_left_over_the_limit(directory: Path) -> Iterator[None]:
    """Takes away the earlier artifact that was to be replaced, where the new one is over the limit.

    Whoever looks into the folder after the command must not find one that was never held against it.
    """
    try:
        yield
    except LimitNotMetError:
        shutil.rmtree(directory, ignore_errors=True)
        raise


@contextlib.contextmanager
def _offer_repair(plan: PlanChoice | None) -> Iterator[None]:
    """Tells who gave a plan that loses too much that its worst layers can go back to float: they do not by themselves.

    Raises:
        LimitNotMetError: As it was raised, with that hint before its own.
        BuildFailedError: Likewise, where the artifact does not follow FP32.
    """
    try:
        yield
    except (BuildFailedError, LimitNotMetError) as error:
        if plan is not None and not plan.repairs:
            advice = "add --repair-plan to put layers of the plan that lose most back to float"
            error.hint = f"{advice}; {error.hint}" if error.hint else advice
        raise


def _describe_samples(evidence: Evidence) -> SampleProvenance:
    """Returns the samples for the manifest, their files without folders."""
    parts = {
        part: None if facts is None else {**facts, "path": drop_folders(facts["path"])}
        for part, facts in evidence.described.items()
    }
    pictures = {} if evidence.pictures is None else {"pictures": encode(evidence.pictures)}
    return decode(SampleProvenance, {**parts, **pictures, "random": evidence.random})


def check_source(target: Target, exported: ExportedModel) -> Readiness:
    """Says whether a source has what a target is built from: some run the PyTorch program, not the ONNX model."""
    if not target.record.uses_program or exported.program_path is not None:
        return Readiness.yes()
    if exported.source.kind == "onnx":
        return Readiness.no(
            "it runs the PyTorch program, and the source is ONNX",
            "give the file.py:factory or the .pt2 that the ONNX model was exported from",
        )
    return Readiness.no("torch could not save the source's program; see the notes of the export")


@dataclass(frozen=True, kw_only=True)
class _Choice:
    """What was chosen for one target of one model: a value for every option, a range for every input, bits a layer."""

    options: Mapping[str, Any]
    shapes: Mapping[str, ShapeRange]
    plan: PlanChoice | None


@dataclass(frozen=True, kw_only=True)
class _Machines:
    """The machine that an artifact is for, the one that builds it, and whether that is such a machine."""

    machine: Machine
    host: Machine
    fits_host: bool


def _require(target_name: str, readiness: Readiness) -> None:
    if not readiness.ok:
        raise ToolchainMissingError(f"{target_name} cannot be built here: {readiness.reason}", hint=readiness.hint)


def _find_reusable(directory: Path, key: str) -> Artifact | str:
    """Returns the artifact in a folder, or why it cannot be used again: it is built anew where the user allows it."""
    try:
        artifact = open_artifact(directory)
        if artifact.manifest.key != key:
            return "was not built from these inputs"
        verify_files(artifact)
    except BadInputError as error:
        return f"cannot be used again: {error.message}"
    return artifact


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What was built: as the child tells of it, in how many seconds, and what was proved of it, or why nothing was."""

    built: dict[str, Any]
    build_s: float
    files: dict[str, str]
    proof: Proof | None
    reason: str | None


def _build_and_prove(
    target: Target,
    exported: ExportedModel,
    evidence: Evidence,
    machines: _Machines,
    choice: _Choice,
    limit: Limit | None,
    threads: int,
    staging: Path,
    scratch: str,
    report: Progress,
) -> _Made:
    started = time.monotonic()
    built = _build_in_staging(target, exported, evidence, machines, choice, limit, staging, scratch, report)
    build_s = time.monotonic() - started
    files = hash_built(target.record.name, staging)
    try:
        with _offer_repair(choice.plan):
            proof, reason = prove(
                target,
                built,
                staging,
                exported,
                evidence,
                machines.machine,
                machines.host,
                threads,
                report,
                files=files,
                answers=staging / REFERENCE,
            )
    except OverLimitError as error:
        error.recipe = built["recipe"]
        raise
    files = hash_proved(target.record.name, staging, files)
    return _Made(built=built, build_s=build_s, files=files, proof=proof, reason=reason)


def _build_in_staging(
    target: Target,
    exported: ExportedModel,
    evidence: Evidence,
    machines: _Machines,
    choice: _Choice,
    limit: Limit | None,
    staging: Path,
    scratch: str,
    report: Progress,
) -> dict[str, Any]:
    built = run_in_child(
        "modelwright.targets.building.build:build_in_child",
        {
            "target": target.record.name,
            # Whole paths: a toolchain may run where it likes, and joins these with folders of its own.
            "model_path": str(exported.model_path.absolute()),
            "program_path": str(exported.program_path) if target.record.uses_program else None,
            "signature": encode(exported.signature),
            "directory": str(staging.absolute()),
            "machine": encode(machines.machine),
            "host": encode(machines.host),
            "fits_host": machines.fits_host,
            "calibration": encode(evidence.calibration),
            "tuning": encode(evidence.tuning),
            "reference": str(evidence.reference / "tuning"),
            "roles": encode(evidence.roles),
            "states": encode(_find_followed(evidence)),
            "limit": encode(limit),
            "options": dict(choice.options),
            "shapes": encode(choice.shapes),
            "plan": None if choice.plan is None else encode(choice.plan),
            "scratch": str(Path(scratch).absolute()),
            "shared": str(evidence.shared.absolute()),
        },
        purpose=f"building {target.record.name}",
        timeout_s=BUILD_TIMEOUT_S,
        progress=report,
    )
    assert isinstance(built, dict)
    if not (staging / built["model_file"]).is_file():
        raise BuildFailedError(f"building {target.record.name} left no file {built['model_file']}")
    return built


def build_in_child(
    target: str,
    model_path: str,
    program_path: str | None,
    signature: dict[str, Any],
    directory: str,
    machine: dict[str, Any],
    host: dict[str, Any],
    fits_host: bool,
    calibration: dict[str, Any] | None,
    tuning: dict[str, Any] | None,
    reference: str,
    roles: dict[str, Any],
    states: list[dict[str, str]],
    limit: dict[str, Any] | None,
    options: dict[str, Any],
    shapes: dict[str, Any],
    plan: dict[str, Any] | None,
    scratch: str,
    shared: str,
    progress: Progress,
) -> dict[str, Any]:
    """Child side of a build: runs the target's own code; returns its `BuildResult` as JSON values."""
    backend = get_target(target)
    parsed = decode(Signature, signature)
    uses_samples = backend.record.uses_samples
    request = BuildRequest(
        model_path=Path(model_path),
        signature=parsed,
        directory=Path(directory),
        machine=decode(Machine, machine),
        host=decode(Machine, host),
        fits_host=fits_host,
        calibration=_open_part(calibration, parsed) if uses_samples else None,
        tuning=_open_part(tuning, parsed) if uses_samples else None,
        reference=read_reference(Path(reference)) if tuning and uses_samples else None,
        roles=decode(dict[str, OutputRole], roles),
        states=decode(tuple[State, ...], states),
        limit=None if limit is None else decode(Limit, limit),
        scratch=Path(scratch),
        shared=Path(shared),
        progress=progress,
        options=options,
        shapes=decode(dict[str, ShapeRange], shapes),
        plan=None if plan is None else decode(PlanChoice, plan),
        program_path=None if program_path is None else Path(program_path),
    )
    result = backend.build(request)
    return {
        "model_file": result.model_file,
        "recipe": dict(result.recipe),
        "requires": dict(result.requires),
        "versions": dict(result.versions),
        "notes": [*([] if result.plan is None else [result.plan.explain()]), *result.notes],
        "emulation": None if result.emulation is None else str(result.emulation),
        "signature": encode(result.signature or parsed),
        "plan": encode(result.plan),
    }


def _find_followed(evidence: Evidence) -> tuple[State, ...]:
    """Returns the states that FP32 can be followed in over many steps."""
    return () if evidence.chain is None or evidence.chain.reason is not None else evidence.chain.states


def _open_part(ref: Mapping[str, Any] | None, signature: Signature) -> SampleSet | None:
    """Opens samples whose values were checked when the evidence was prepared."""
    return None if ref is None else open_samples(decode(SampleRef, ref), signature, checked=True)


def _prove_again(
    artifact: Artifact, exported: ExportedModel, evidence: Evidence, host: Machine, threads: int, report: Progress
) -> Artifact:
    """Keeps the proof of a reused artifact where samples, machine and threads are the same; else renews it."""
    manifest = artifact.manifest
    proof = manifest.proof
    conditions = describe_conditions(evidence, host, threads)
    if (
        proof is not None
        and (told := encode(proof)) == told | conditions
        and _chains_alike(proof, evidence)
        and is_held_alike(proof, evidence.limit)
    ):
        require_within(manifest.target, proof)
        described = _describe_samples(evidence)
        if manifest.samples.pictures == described.pictures:
            return artifact
        # The same values, made otherwise.
        return write_manifest(artifact.directory, replace(manifest, samples=described))
    samples = _describe_samples(evidence)
    try:
        renewed, reason = prove_artifact(artifact, exported, evidence, host, threads, report)
    except OverLimitError as error:
        write_manifest(artifact.directory, replace(manifest, samples=samples, proof=error.proof, proof_reason=None))
        raise
    verify_files(artifact)
    if renewed is None and proof is not None:
        return artifact  # it cannot run here: what was proved when it was built still says on which samples
    # The samples that judged are those of the new proof; those it was built on are in the key, and so the same.
    return write_manifest(artifact.directory, replace(manifest, samples=samples, proof=renewed, proof_reason=reason))


def _chains_alike(proof: Proof, evidence: Evidence) -> bool:
    """Whether a proof fed back the states that this evidence has."""
    proved = () if proof.chain is None else proof.chain.states
    return proved == (() if evidence.chain is None else evidence.chain.states)


def explain_failure(error: ModelwrightError) -> dict[str, str | None]:
    """Returns what a comparison's row says of a target that failed."""
    return {"reason": error.message, "hint": error.hint, "detail": error.detail}


__all__ = ["MANIFEST", "build", "explain_failure"]
