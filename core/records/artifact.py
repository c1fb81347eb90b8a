"""An artifact: a folder with the runtime's files and `artifact.json`, the manifest that says what it is.

A manifest is written last and read first: a folder without one is no artifact, a manifest that was edited is refused
(`seal.py`), and files whose hash is not the manifest's are never loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, UnsetType

from modelwright.core.errors import BadInputError
from modelwright.core.outputs.chains import ChainProof
from modelwright.core.outputs.drop import Drop
from modelwright.core.outputs.fidelity import Fidelity
from modelwright.core.outputs.label_fit import LabelFit
from modelwright.core.outputs.target_fit import TargetFit
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE, find_changes
from modelwright.core.records.codec import Amount, Count, FileName, Line, Record, Sha256
from modelwright.core.records.exported import SourceModel
from modelwright.core.records.machine import Machine
from modelwright.core.records.pictures import Pictures
from modelwright.core.records.plan import ExecutedPlan
from modelwright.core.records.seal import read_sealed, write_sealed
from modelwright.core.records.signature import Signature
from modelwright.core.records.texts import Texts
from modelwright.core.records.tuned import Tuned

_HINT = "build the artifact again, or copy it again from where it was built"
_Few = Annotated[tuple[Line, ...], Meta(max_length=100)]


class ProvenancePart(Record):
    """Samples that an artifact was calibrated, tuned or judged on.

    Attributes:
        path: As the user wrote it.
        count: How many.
        sha256: Of names, dtypes, shapes and bytes.
        labels: Whether they have labels.
        shapes: Input name -> shape of the first sample, batch dimension included.
    """

    path: str
    count: Count
    sha256: Sha256
    labels: bool
    shapes: Mapping[str, tuple[Count, ...]]


class SampleProvenance(Record):
    """Which samples made and judged an artifact; None where there were none of a part.

    Attributes:
        pictures: How pictures became samples, as they must where the model is served; absent where they were none.
        texts: Likewise of texts; the tokenizer that did it lies beside the manifest.
    """

    calibration: ProvenancePart | None = None
    tuning: ProvenancePart | None = None
    evaluation: ProvenancePart | None = None
    random: bool = False
    pictures: Pictures | UnsetType = UNSET
    texts: Texts | UnsetType = UNSET


class GpuNeeds(Record):
    """What an engine needs of a GPU; see `targets/tensorrt/portability.py`."""

    flavour: Line | UnsetType = UNSET
    name: Line | UnsetType | None = UNSET
    compute_capability: Line | UnsetType | None = UNSET
    runs_on: Annotated[str, Meta(max_length=200)] | _Few | UnsetType | None = UNSET
    hardware_compatible: Line | UnsetType = UNSET
    driver_version: Line | UnsetType | None = UNSET
    cuda_version: Line | UnsetType | None = UNSET
    memory_bytes: Count | UnsetType | None = UNSET


class Requires(Record):
    """What the machine that runs an artifact must have; what is absent is not asked for.

    Attributes:
        instruction_sets: All of them.
        any_instruction_set: One of them.
        packages: Distribution -> versions, as a pip specifier.
        gpu: Of an engine.
    """

    instruction_sets: _Few | UnsetType = UNSET
    any_instruction_set: _Few | UnsetType = UNSET
    packages: Annotated[Mapping[Line, Line], Meta(max_length=100)] | UnsetType = UNSET
    gpu: GpuNeeds | UnsetType | None = UNSET


class BuildHost(Record):
    """The machine that an artifact was built on."""

    architecture: Line
    system: Line
    python: Line


class Arithmetic(Record):
    """How what the build host computes of an artifact stands to what the machine computes that it is for.

    Attributes:
        alike: Whether they are known to be the same up to the order of float sums.
        why: A sentence without a subject and an end, for people.
    """

    alike: bool
    why: Line


class Proof(Record):
    """The comparison with FP32 on the evaluation samples.

    Attributes:
        fidelity: How it follows FP32.
        count: Samples.
        correct: Of them, those that the artifact gets right; None without labels.
        correct_fp32: Those that FP32 gets right.
        emulated: What evaluated its graph, where the build host cannot run the artifact itself.
        arithmetic: What is known of the machine that it is for, where the host is of another kind; None where the two
            compute alike for certain, and where its graph was evaluated.
        device: Where it ran.
        samples_sha256: Of the evaluation samples.
        host: That it ran on.
        threads: That it ran with.
        roles: Output -> what it means; None in manifests of earlier versions.
        chain: How it follows FP32 when each is fed with its own state; None for a model without states. Its findings
            are among those of `fidelity`.
        drop: What it loses, held against what the user allows; None where they set no limit.
        fits: How its answers come up to the samples' targets, of every output that there are some for.
        labels: How many are right where a text has several; None for all others.
    """

    fidelity: Fidelity
    count: Count
    correct: Count | None
    correct_fp32: Count | None
    emulated: Line | None = None
    arithmetic: Arithmetic | None = None
    device: Literal["cpu", "cuda"] = "cpu"
    samples_sha256: Sha256
    host: Machine
    threads: Count
    roles: Mapping[str, OutputRole] | None = None
    chain: ChainProof | None = None
    drop: Drop | None = None
    fits: tuple[TargetFit, ...] = ()
    labels: LabelFit | None = None


class Manifest(Record):
    """What `artifact.json` holds.

    Attributes:
        target: `ort-int8`, ...
        model_file: The file that the runtime loads, relative to the folder.
        files: Path relative to the folder -> SHA-256, of every file but the manifest.
        size_bytes: Of the files a device needs: all but the reference outputs.
        signature: Of the ONNX model; the artifact is fed and read in these names, dtypes and layouts.
        source: The FP32 model, and what it was exported from.
        samples: That it was made with and judged on.
        machine: The machine it was built for.
        requires: What the machine that runs it must have.
        recipe: What was done, in the target's own words.
        versions: Package -> version of what made it.
        build_host: Architecture, operating system and Python of the machine it was built on.
        build_s: Seconds the build took, proof not included.
        proof: The comparison with FP32 on the evaluation samples, or None with `proof_reason`.
        proof_reason: Why there is no proof: the host cannot run it.
        notes: Sentences for the user.
        key: Hash of all that decides the files; an artifact with the same key need not be built again.
        created: ISO 8601, UTC.
        tuned: How it is run, where `modelwright tune` said so; absent for all others.
        plan: What became of the plan of precisions that it was built by; absent for all others.
    """

    schema: Annotated[
        Literal[2], Meta(extra={"hint": "it was made by another version of modelwright: build it again"})
    ] = 2
    target: Line
    model_file: FileName
    files: Mapping[FileName, Sha256]
    size_bytes: Count
    signature: Signature
    source: SourceModel
    samples: SampleProvenance
    machine: Machine
    requires: Requires
    recipe: Mapping[str, Any]
    versions: Mapping[Line, Line]
    build_host: BuildHost
    build_s: Amount
    proof: Proof | None
    proof_reason: str | None
    notes: tuple[str, ...]
    key: Sha256
    created: Line
    tuned: Tuned | UnsetType = UNSET
    plan: ExecutedPlan | UnsetType = UNSET


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A folder and its manifest.

    Attributes:
        directory: The folder.
        manifest: As it was read or written.
        seal: The hash of the manifest, and so of all that it hashes: two artifacts with one seal are the same.
    """

    directory: Path
    manifest: Manifest
    seal: str

    @property
    def model_path(self) -> Path:
        return self.directory / self.manifest.model_file

    @property
    def reference_path(self) -> Path | None:
        """Inputs with the FP32 model's outputs, to prove the artifact on the device; None when absent."""
        return self.directory / REFERENCE if REFERENCE in self.manifest.files else None


def write_manifest(directory: Path, manifest: Manifest) -> Artifact:
    """Writes `artifact.json`; the last step of a build, after which the folder is an artifact."""
    seal = write_sealed(directory / MANIFEST, manifest)
    return Artifact(directory=directory, manifest=manifest, seal=seal)


def open_artifact(directory: Path) -> Artifact:
    """Reads an artifact's manifest; its files are not touched.

    Raises:
        BadInputError: No such folder, no manifest, one that was edited, or one that this version does not understand.
    """
    if not directory.is_dir():
        raise BadInputError(
            f"no such artifact: {directory}", hint="give the folder that `modelwright build` made, not a file in it"
        )
    path = directory / MANIFEST
    if not path.is_file():
        # What `build` makes holds artifacts, what `compare` makes a folder of them.
        found = [*directory.glob(f"*/{MANIFEST}"), *directory.glob(f"artifacts/*/{MANIFEST}")]
        inner = sorted(str(child.parent.relative_to(directory)) for child in found)
        hint = f"it holds artifacts: {', '.join(inner)}" if inner else "build one with `modelwright build`"
        if any(directory.glob("*.export.json")):
            hint = "it holds the exported ONNX model; name the artifacts beside it"
        raise BadInputError(f"{directory} is not an artifact: it has no {MANIFEST}", hint=hint)
    manifest, seal = read_sealed(Manifest, path, what="an artifact's manifest", hint=_HINT)
    if manifest.model_file not in manifest.files:
        raise BadInputError(f"{path}: model_file: it has no hash in files", hint=_HINT)
    proof = manifest.proof
    if proof is not None and max(proof.correct or 0, proof.correct_fp32 or 0) > proof.count:
        raise BadInputError(f"{path}: proof: more right answers than its {proof.count} samples", hint=_HINT)
    return Artifact(directory=directory, manifest=manifest, seal=seal)


def verify_files(artifact: Artifact) -> None:
    """Compares every file with the manifest.

    Raises:
        BadInputError: A file is missing, changed, or was added; or something lies there that is no file.
    """
    faults = list(find_changes(artifact.directory, artifact.manifest.files))
    if faults:
        raise BadInputError(
            f"artifact {artifact.directory} is not what was built: {'; '.join(faults)}",
            hint="build it again, or copy the whole folder again",
        )
