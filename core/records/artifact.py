"""An artifact: a folder with the runtime's files and `artifact.json`, the manifest that says what it is.

A manifest is written last and read first: a folder without one is no artifact, and files whose hash is not the
manifest's are never loaded.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, read_json, write_json
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature

MANIFEST = "artifact.json"
REFERENCE = "reference.npz"
SCHEMA = 1
_TYPES: Mapping[str, Any] = {
    "target": str,
    "model_file": str,
    "files": dict,
    "size_bytes": int,
    "source": dict,
    "samples": dict,
    "machine": dict,
    "requires": dict,
    "recipe": dict,
    "versions": dict,
    "build_host": dict,
    "build_s": int | float,
    "proof": dict | None,
    "proof_reason": str | None,
    "notes": list,
    "key": str,
    "created": str,
}
_INNER_TYPES: Mapping[str, Mapping[str, Any]] = {
    "source": {"path": str, "sha256": str},
    "machine": {"name": str, "architecture": str},
    "build_host": {"system": str},
    "proof": {
        "fidelity": dict,
        "count": int,
        "correct": int | None,
        "correct_fp32": int | None,
        "samples_sha256": str,
        "host": dict,
    },
}
_FIDELITY_TYPES: Mapping[str, Any] = {"agreement": int | float | None, "cosine": int | float | None}
_SAMPLES_TYPES: Mapping[str, Any] = {"path": str, "count": int, "sha256": str}
_GPU_TYPES: Mapping[str, Any] = {
    "name": str | None,
    "compute_capability": str | None,
    "runs_on": str | list | None,
    "driver_version": str | None,
    "cuda_version": str | None,
    "memory_bytes": int | None,
}
_LONGEST_NEED = 200
_MOST_NEEDS = 100
_LARGEST_NUMBER = 2**63


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `artifact.json` holds.

    Attributes:
        target: `ort-int8`, ...
        model_file: The file that the runtime loads, relative to the folder.
        files: Path relative to the folder -> SHA-256, of every file but the manifest.
        size_bytes: Of the files a device needs: all but the reference outputs.
        signature: Of the ONNX model; the artifact is fed and read in these names, dtypes and layouts.
        source: Kind, path, SHA-256, number of parameters and opset of the FP32 model.
        samples: Of each part (calibration, tuning, evaluation): path, count, SHA-256; None where not used.
        machine: The machine it was built for (`Machine.to_dict`).
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
    """

    target: str
    model_file: str
    files: Mapping[str, str]
    size_bytes: int
    signature: Signature
    source: Mapping[str, Any]
    samples: Mapping[str, Any]
    machine: Mapping[str, Any]
    requires: Mapping[str, Any]
    recipe: Mapping[str, Any]
    versions: Mapping[str, str]
    build_host: Mapping[str, Any]
    build_s: float
    proof: Mapping[str, Any] | None
    proof_reason: str | None
    notes: Sequence[str]
    key: str
    created: str
    schema: int = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["signature"] = encode(self.signature)
        return {"schema": data.pop("schema"), **data}


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """A folder and its manifest."""

    directory: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        return self.directory / self.manifest.model_file

    @property
    def reference_path(self) -> Path | None:
        """Inputs with the FP32 model's outputs, to prove the artifact on the device; None when absent."""
        path = self.directory / REFERENCE
        return path if path.is_file() else None


def hash_files(directory: Path) -> dict[str, str]:
    """Returns relative path -> SHA-256 for every file of a folder but the manifest."""
    return {
        path.relative_to(directory).as_posix(): hash_file(path)
        for path in sorted(directory.rglob("*"))
        if path.is_file() and path.name != MANIFEST
    }


def measure_size(directory: Path) -> int:
    """Returns the bytes that a device needs: every file but the manifest and the reference outputs."""
    return sum(
        path.stat().st_size
        for path in directory.rglob("*")
        if path.is_file() and path.name not in (MANIFEST, REFERENCE)
    )


def write_manifest(directory: Path, manifest: Manifest) -> Artifact:
    """Writes `artifact.json`; the last step of a build, after which the folder is an artifact."""
    write_json(directory / MANIFEST, manifest.to_dict())
    return Artifact(directory=directory, manifest=manifest)


def open_artifact(directory: Path) -> Artifact:
    """Reads an artifact's manifest; its files are not touched.

    Raises:
        BadInputError: No such folder, no manifest, or one that this version does not understand.
    """
    if not directory.is_dir():
        raise BadInputError(
            f"no such artifact: {directory}", hint="give the folder that `modelwright build` made, not a file in it"
        )
    path = directory / MANIFEST
    if not path.is_file():
        inner = sorted(child.parent.name for child in directory.glob(f"*/{MANIFEST}"))
        hint = f"it holds artifacts: {', '.join(inner)}" if inner else "build one with `modelwright build`"
        if any(directory.glob("*.export.json")):
            hint = "it holds the exported ONNX model; name the artifacts beside it"
        raise BadInputError(f"{directory} is not an artifact: it has no {MANIFEST}", hint=hint)
    data = read_json(path, "an artifact's manifest")
    return Artifact(directory=directory, manifest=_parse_manifest(path, data))


def verify_files(artifact: Artifact) -> None:
    """Compares every file with the manifest.

    Raises:
        BadInputError: A file is missing, changed, or was added.
    """
    expected = dict(artifact.manifest.files)
    try:
        found = hash_files(artifact.directory)
    except OSError as error:
        raise BadInputError(f"artifact {artifact.directory} cannot be read: {error}") from error
    faults = [f"{name} is missing" for name in sorted(expected.keys() - found.keys())]
    faults += [f"{name} is not in the manifest" for name in sorted(found.keys() - expected.keys())]
    faults += [
        f"{name} was changed (SHA-256 {found[name][:12]}..., the manifest says {expected[name][:12]}...)"
        for name in sorted(found.keys() & expected.keys())
        if found[name] != expected[name]
    ]
    if faults:
        raise BadInputError(
            f"artifact {artifact.directory} is not what was built: {'; '.join(faults)}",
            hint="build it again, or copy the whole folder again",
        )


def _parse_manifest(path: Path, data: dict[str, Any]) -> Manifest:
    fields = {field.name for field in dataclasses.fields(Manifest)}
    if data.get("schema") != SCHEMA:
        raise BadInputError(
            f"{path}: schema {data.get('schema')!r} is not {SCHEMA}",
            hint="it was made by another version of modelwright: build it again",
        )
    unknown, missing = sorted(data.keys() - fields), sorted(fields - data.keys())
    if unknown or missing:
        raise BadInputError(f"{path}: unknown keys {unknown}, missing keys {missing}", hint="build the artifact again")
    _check_types(path, data)
    for name in (data["model_file"], *data["files"]):
        # A manifest may come from anywhere: it must not point out of its folder.
        if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise BadInputError(f"{path}: file {name!r} is not inside the artifact", hint="do not use this artifact")
    if data["model_file"] not in data["files"]:
        raise BadInputError(f"{path}: model_file {data['model_file']!r} has no hash", hint="build the artifact again")
    try:
        signature = decode(Signature, data["signature"])
    except BadInputError as error:
        raise BadInputError(f"{path}: signature cannot be read: {error}", hint="build the artifact again") from error
    return Manifest(**{**data, "signature": signature})


def _check_types(path: Path, data: Mapping[str, Any]) -> None:
    """Checks the types of all that is read without a schema of its own."""
    _require_types(path, "", data, _TYPES)
    for name, types in _INNER_TYPES.items():
        if data[name] is not None:
            _require_types(path, f"{name}.", data[name], types)
    for name in ("files", "versions"):
        _require_types(path, f"{name}.", data[name], dict.fromkeys(data[name], str))
    for part, samples in data["samples"].items():
        if isinstance(samples, dict):
            _require_types(path, f"samples.{part}.", samples, _SAMPLES_TYPES)
    _check_needs(path, data["requires"])
    for name in ("name", "architecture"):
        if not _is_reasonable(data["machine"][name]):
            raise BadInputError(f"{path}: machine.{name} is no name of a machine", hint="build the artifact again")
    if data["proof"] is not None:
        _require_types(path, "proof.fidelity.", data["proof"]["fidelity"], _FIDELITY_TYPES)


def _check_needs(path: Path, requires: Mapping[str, Any]) -> None:
    """Checks what targets compare with the machine and print: types, and sizes that no build writes."""
    for name in ("instruction_sets", "any_instruction_set"):
        if not _is_texts(requires.get(name, [])):
            raise BadInputError(f"{path}: requires.{name} must be a list of texts", hint="build the artifact again")
    known: dict[str, Any] = {"packages": {}, "gpu": None, **requires}
    _require_types(path, "requires.", known, {"packages": dict, "gpu": dict | None})
    packages, gpu = known["packages"], known["gpu"] or {}
    _require_types(path, "requires.packages.", packages, dict.fromkeys(packages, str))
    _require_types(path, "requires.gpu.", dict.fromkeys(_GPU_TYPES) | gpu, _GPU_TYPES)
    for name, value in (*requires.items(), *packages.items(), *gpu.items()):
        if not _is_reasonable(value):
            raise BadInputError(
                f"{path}: requires holds {name!r}: {str(value)[:60]!r}..., which no build writes",
                hint="build the artifact again",
            )


def _is_reasonable(value: object) -> bool:
    """Whether a value is short, printable text, a number of 64 bits, or few of such."""
    if isinstance(value, str):
        return len(value) <= _LONGEST_NEED and value.isprintable()
    if isinstance(value, int | float):
        return abs(value) < _LARGEST_NUMBER
    if isinstance(value, dict):
        return len(value) <= _MOST_NEEDS
    if isinstance(value, list):
        return len(value) <= _MOST_NEEDS and all(isinstance(item, str) and _is_reasonable(item) for item in value)
    return value is None


def _require_types(path: Path, prefix: str, data: Mapping[str, Any], types: Mapping[str, Any]) -> None:
    """Checks that values are of the types named; a manifest may have been edited, or made to do harm."""
    for name, expected in types.items():
        if not isinstance(data.get(name), expected):
            wanted = str(expected).removeprefix("<class '").removesuffix("'>")
            raise BadInputError(
                f"{path}: {prefix}{name} must be {wanted}, not {str(data.get(name))[:80]!r}",
                hint="build the artifact again",
            )


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)
