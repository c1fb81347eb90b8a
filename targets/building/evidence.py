"""What an artifact is built from and judged by: which samples calibrate, tune and judge, and FP32's answers to them.

Prepared once for all targets of a comparison. The three parts never overlap: a recipe that chooses among candidates
does so on the tuning part, and the evaluation part only judges.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.tasks.roles import OutputRole, Role, find_roles
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, open_samples

EVALUATION_LIMIT = 512
"""Samples that judge, at most, unless the user asks for more: a share of 99 % is then known within 0.9 points."""


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Samples by part, and where FP32's outputs on them lie.

    Attributes:
        calibration: None when the file has too few samples to spare any.
        tuning: None likewise.
        evaluation: Always there.
        described: Part -> path, count, SHA-256, whether labelled; for manifests and results.
        reference: Folder with FP32's outputs for `tuning` and `evaluation`, each in a folder of its name.
        random: Whether the samples are noise that the user asked for by name.
        roles: Output -> what it means, found in FP32's outputs on the evaluation samples or said by the user.
        doubts: What the evaluation samples cannot show, a sentence each.
    """

    calibration: SampleRef | None
    tuning: SampleRef | None
    evaluation: SampleRef
    described: Mapping[str, Any]
    reference: Path
    random: bool
    roles: Mapping[str, OutputRole] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()

    @property
    def sampled_shapes(self) -> dict[str, list[list[int]]]:
        """Input name -> the shapes seen among the samples, batch dimension included."""
        parts = [part for part in self.described.values() if part is not None]
        return {name: [part["shapes"][name] for part in parts] for name in parts[0]["shapes"]} if parts else {}

    @property
    def shared(self) -> Path:
        """A folder that all builds from this evidence see."""
        return self.reference / "shared"


def prepare_evidence(
    exported: ExportedModel,
    samples: Path,
    scratch: Path,
    *,
    evaluation: Path | None = None,
    limit: int = EVALUATION_LIMIT,
    random: bool = False,
    origins: Mapping[str, str] | None = None,
    tasks: Mapping[str, Role] | None = None,
    progress: Progress | None = None,
) -> Evidence:
    """Checks and splits the samples and computes FP32's outputs on them, in a child process.

    Args:
        exported: The FP32 model.
        samples: A `.npz` file or a folder of `.npy` files; calibrates, and judges too unless `evaluation` is given.
        scratch: A folder for the FP32 outputs.
        evaluation: Samples that only judge.
        limit: Judge on at most this many samples.
        random: Whether the samples are noise.
        origins: Path that was opened -> what the user called it, for the manifest.
        tasks: Output -> its task, as the user said it; see `roles.parse_task`.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: Samples that do not fit the model, or the same file given to calibrate and to judge.
    """
    if evaluation is not None and evaluation.resolve() == samples.resolve():
        raise BadInputError(
            f"{samples} is given both to calibrate and to judge",
            hint="leave out --eval: half of the samples is then held back to judge",
        )
    held_back = evaluation is None
    base = SampleRef(path=samples, holds_evaluation=held_back)
    judge = SampleRef(
        path=samples if evaluation is None else evaluation, part="evaluation", limit=limit, holds_evaluation=held_back
    )
    parts = {
        "calibration": replace(base, part="calibration"),
        "tuning": replace(base, part="tuning"),
        "evaluation": judge,
    }
    described = run_in_child(
        "modelwright.targets.building.evidence:describe_in_child",
        {
            "model_path": str(exported.model_path),
            "signature": encode(exported.signature),
            "parts": encode(parts),
            "reference": str(scratch),
            "tasks": dict(tasks or {}),
        },
        purpose=f"reading the samples and running {exported.model_path.name} in FP32",
        crash_error=BadInputError,
        progress=progress,
    )
    roles = decode(dict[str, OutputRole], described.pop("roles"), where="what the outputs mean")
    doubts = tuple(described.pop("doubts"))
    (scratch / "shared").mkdir(parents=True, exist_ok=True)
    for part in described.values():
        if part is not None and origins:
            part["path"] = origins.get(part["path"], part["path"])
    return Evidence(
        calibration=parts["calibration"] if described["calibration"] else None,
        tuning=parts["tuning"] if described["tuning"] else None,
        evaluation=judge,
        described=described,
        reference=scratch,
        random=random,
        roles=roles,
        doubts=doubts,
    )


def describe_in_child(
    model_path: str,
    signature: dict[str, Any],
    parts: dict[str, Any],
    reference: str,
    tasks: dict[str, Role],
    progress: Progress,
) -> dict[str, Any]:
    """Child side of `prepare_evidence`.

    Returns:
        Part -> path, count, SHA-256, whether labelled, None for an empty part; `roles`, what the outputs mean; and
        `doubts`, what the evaluation samples cannot show.
    """
    from modelwright.core.outputs.reference import read_reference, write_reference
    from modelwright.targets.building.doubts import find_doubts

    parsed = decode(Signature, signature)
    described: dict[str, Any] = {}
    for name, data in parts.items():
        ref = decode(SampleRef, data)
        progress(f"reading the {name} samples")
        samples = open_samples(ref, parsed)
        if samples.count == 0:
            described[name] = None
            continue
        described[name] = {
            "path": str(ref.path),
            "count": samples.count,
            "sha256": samples.sha256,
            "labels": samples.labels is not None,
            "shapes": {name: list(value.shape) for name, value in next(iter(samples.feeds(1))).items()},
        }
        if name != "calibration":
            progress(f"running FP32 on {samples.count} {name} samples")
            write_reference(Path(model_path), samples, Path(reference) / name)
    judged = described["evaluation"]
    if judged is None:
        return described | {"roles": {}, "doubts": []}
    answers = read_reference(Path(reference) / "evaluation")
    roles = find_roles(answers, tasks=tasks, labelled=judged["labels"])
    samples = open_samples(decode(SampleRef, parts["evaluation"]), parsed, checked=True)
    doubts = find_doubts(samples.feeds(), answers, roles, samples.labels)
    return described | {"roles": encode(roles), "doubts": doubts}
