"""Child side of a build: reads what the parent sent, and runs the target's own code on it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.outputs.limit import Limit
from modelwright.core.outputs.output_files import read_reference
from modelwright.core.outputs.states import State
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.process.child import Progress
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.machine import Machine
from modelwright.core.records.plan import PlanChoice
from modelwright.core.records.shapes import ShapeRange
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, SampleSet, open_samples
from modelwright.targets.contract import BuildRequest
from modelwright.targets.table import get_target


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
    """Runs the target's own code; returns its `BuildResult` as JSON values."""
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


def _open_part(ref: Mapping[str, Any] | None, signature: Signature) -> SampleSet | None:
    """Opens samples whose values were checked when the evidence was prepared."""
    return None if ref is None else open_samples(decode(SampleRef, ref), signature, checked=True)
