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
    ToolchainMissingError,
)
from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.states import State
from modelwright.core.path_names import drop_folders
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.artifact import (
    Artifact,
    BuildHost,
    Manifest,
    Proof,
    Requires,
    open_artifact,
    write_manifest,
)
from modelwright.core.records.artifact_files import REFERENCE, measure_size
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.plan import ExecutedPlan, PlanChoice
from modelwright.core.records.shapes import ShapeRange, require_shapes_admit, require_shapes_fit, resolve_shapes
from modelwright.core.records.signature import Signature
from modelwright.core.records.texts import TEXT_TOKENIZER
from modelwright.core.scratch import scratch_directory, staged_directory
from modelwright.targets.building.choices import BuildChoices
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.building.key import make_key
from modelwright.targets.building.limits import OverLimitError
from modelwright.targets.building.proof_files import hash_built, hash_proved
from modelwright.targets.building.prove import prove
from modelwright.targets.building.replacing import require_own
from modelwright.targets.building.reusing import describe_samples, find_reusable, prove_again
from modelwright.targets.building.rooms import keep_within
from modelwright.targets.contract import Target
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
        reusable = find_reusable(directory, key)
        if isinstance(reusable, Artifact):
            return prove_again(reusable, exported, evidence, host, threads, report), True
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
                samples=describe_samples(evidence),
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
        "modelwright.targets.building.worker:build_in_child",
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
    if evidence.tokenizer is not None:  # whoever serves the artifact has texts, not tokens
        shutil.copyfile(evidence.tokenizer, staging / TEXT_TOKENIZER)
    return built


def _find_followed(evidence: Evidence) -> tuple[State, ...]:
    """Returns the states that FP32 can be followed in over many steps."""
    return () if evidence.chain is None or evidence.chain.reason is not None else evidence.chain.states
