"""The key of an artifact: one hash over all that decides its files.

An artifact whose key is the one that its inputs have today is not built again. So whatever could change a byte of it
belongs here, or into the target's own `key_facts`; where files lie, and how an artifact is measured, does not.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.core.files import hash_file, hash_json
from modelwright.core.outputs.limit import ROOMS
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.plan import PlanChoice
from modelwright.core.records.shapes import ShapeRange
from modelwright.targets.building.evidence import Evidence
from modelwright.targets.contract import Target
from modelwright.targets.readiness import find_distributions, package_versions

_REFERENCE_MAKERS = ("onnxruntime", "numpy")
"""What computes FP32's answers on the tuning samples, by which a recipe chooses among its candidates."""


def make_key(
    target: Target,
    exported: ExportedModel,
    evidence: Evidence,
    machine: Machine,
    options: Mapping[str, Any],
    shapes: Mapping[str, ShapeRange],
    *,
    fits_host: bool,
    plan: PlanChoice | None = None,
) -> str:
    """Hashes all that decides an artifact's files.

    Args:
        target: Its target.
        exported: The FP32 model.
        evidence: Samples, and what the outputs mean.
        machine: The machine it is for.
        options: A value for each of the target's options.
        shapes: Input name -> its range.
        fits_host: Whether this host is such a machine, so that times taken here may decide.
        plan: Of precisions; None where there is none for this target.
    """
    record = target.record
    gpu = machine.gpu if record.uses_gpu else None
    return hash_json(
        {
            "target": record.name,
            "recipe_version": record.recipe_version,
            "model": exported.sha256,
            "program": exported.program_sha256 if record.uses_program else None,
            "samples": _describe_samples(evidence) if record.uses_samples else None,
            "limit": _describe_limit(evidence) if record.uses_samples else None,
            "machine": {name: value for name, value in encode(machine).items() if name not in ("name", "gpu")},
            "gpu": None if gpu is None else [gpu.name, gpu.compute_capability],
            "times": fits_host if record.uses_speed else None,
            "options": dict(options),
            "shapes": encode(shapes) if record.uses_shapes else {},
            "packages": package_versions("modelwright", *find_distributions(record.build_packages)),
            "facts": target.key_facts(machine),
            # Only where there is one: artifacts without keep the key that they have.
            **({} if plan is None else {"plan": encode(plan)}),
            **({} if evidence.tokenizer is None else {"tokenizer": hash_file(evidence.tokenizer)}),
        }
    )


def _describe_samples(evidence: Evidence) -> dict[str, Any]:
    """Returns what a recipe sees of the samples: two parts, FP32's answers to them, and what the answers mean."""
    parts = {part: (evidence.described[part] or {}).get("sha256") for part in ("calibration", "tuning")}
    # Why an output is taken for what it is, is text for people.
    roles = {name: {**encode(role), "why": None} for name, role in evidence.roles.items()}
    return {**parts, "roles": roles, "reference": package_versions(*_REFERENCE_MAKERS)}


def _describe_limit(evidence: Evidence) -> dict[str, Any] | None:
    """Returns what a recipe must keep to; where the user's metric lies does not matter."""
    limit = evidence.limit
    if limit is None:
        return None
    metric = None if limit.metric is None else {**encode(limit.metric), "path": None}
    return {**encode(limit), "metric": metric, "room": ROOMS}
