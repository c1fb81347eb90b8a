"""The record of an exported model: what it is, where it came from, and how it follows its source.

It lies beside the model as `STEM.export.json`. A model is used only while its hash is the record's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, hash_json, read_json, write_json
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.signature import Signature

SCHEMA = 2
RECORD_SUFFIX = ".export.json"
PROGRAM_SUFFIX = ".program.pt2"
"""Not `.pt2` alone: that is what users call the program that they export from."""
PROGRAM_CALL_FILE = "modelwright-call.json"
"""Inside a saved program: `inputs` and `outputs`, ONNX name -> place among the program's flat inputs or outputs."""


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A verified FP32 ONNX model.

    Attributes:
        model_path: The ONNX file.
        signature: Its inputs and outputs.
        source: `kind` (`onnx`, `pt2`, `factory`), `path` as the user wrote it, `sha256` of all that decides the source
            (code, weights, data files), and `files`, name -> SHA-256.
        num_parameters: Elements of floating-point weights.
        opset: Of the default ONNX domain.
        sha256: Of the model; of all its files together when the weights lie in files of their own.
        files: Name relative to the model's folder -> SHA-256: the model and its external data.
        size_bytes: Of these files.
        comparison: `samples`, `on` (`samples` or `example inputs`), `tolerance`, `worst_output`, and `outputs`: name ->
            `max_abs_error`, `relative_l2_error`, `cosine`, `equal_share`. None with `comparison_reason`.
        comparison_reason: Why the model was not compared with its source.
        program: Name of the source as a saved `torch.export` program beside the model, FP32 and in evaluation mode,
            without example inputs; None for an ONNX source, and for a module that torch cannot save.
        program_sha256: Of that file; the same source gives the same hash.
        notes: Sentences for the user.
        versions: Package -> version of what made and checked it.
    """

    model_path: Path
    signature: Signature
    source: Mapping[str, Any]
    num_parameters: int
    opset: int
    sha256: str
    files: Mapping[str, str]
    size_bytes: int
    comparison: Mapping[str, Any] | None
    comparison_reason: str | None
    notes: Sequence[str]
    versions: Mapping[str, str]
    program: str | None = None
    program_sha256: str | None = None
    schema: int = SCHEMA

    @property
    def program_path(self) -> Path | None:
        """The saved program, absolute; None where there is none."""
        return None if self.program is None else self.model_path.resolve().parent / self.program

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON values; `from_dict` turns them back."""
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data |= {"model_path": str(self.model_path), "signature": encode(self.signature), "notes": list(self.notes)}
        return {"schema": data.pop("schema"), **data}

    @staticmethod
    def from_dict(data: Mapping[str, Any]) -> ExportedModel:
        return ExportedModel(
            **{
                **data,
                "model_path": Path(data["model_path"]),
                "signature": decode(Signature, data["signature"]),
                "notes": tuple(data["notes"]),
            }
        )

    def describe_source(self) -> dict[str, Any]:
        """Returns what manifests and results say of the FP32 model and of its source."""
        return {
            "kind": self.source["kind"],
            "path": self.source["path"],
            "sha256": self.source["sha256"],
            "num_parameters": self.num_parameters,
            "opset": self.opset,
            "onnx_sha256": self.sha256,
            "onnx_size_bytes": self.size_bytes,
            "comparison": self.comparison,
        }

    def summarize(self) -> str:
        """Returns a line for people: name, size, parameters, opset, and how it follows its source."""
        parts = [
            f"{self.model_path.name}: {self.size_bytes / 1e6:.2f} MB",
            f"{_shorten_count(self.num_parameters)} parameters",
            f"opset {self.opset}",
        ]
        if self.comparison is None:
            parts.append(self.comparison_reason or "not compared with its source")
        else:
            errors = [output["relative_l2_error"] or 0.0 for output in self.comparison["outputs"].values()]
            count = self.comparison["samples"]
            parts.append(f"relative error {max(errors, default=0.0):.1e} on {count} input{'s' if count != 1 else ''}")
        return ", ".join(parts)


def record_path(model_path: Path) -> Path:
    """Returns where the record of a model lies: `model.onnx` -> `model.export.json`."""
    return model_path.with_name(model_path.stem + RECORD_SUFFIX)


def save_exported(exported: ExportedModel) -> Path:
    """Writes the record beside the model; the last step of an export."""
    path = record_path(exported.model_path)
    write_json(path, exported.to_dict() | {"model_path": exported.model_path.name})
    return path


def load_exported(path: str | Path, *, verify: bool = True) -> ExportedModel:
    """Reads a record and checks that the model is still the one that it describes.

    Args:
        path: The model or its record.
        verify: Compare the hashes of the model's files; takes a second per gigabyte.

    Raises:
        BadInputError: No record, an unknown one, or a model that is missing or was changed.
    """
    path = Path(path)
    record = path if path.name.endswith(RECORD_SUFFIX) else record_path(path)
    data = read_json(record, "the record of an exported model")
    fields = {field.name for field in dataclasses.fields(ExportedModel)}
    if data.get("schema") != SCHEMA:
        raise BadInputError(f"{record}: schema {data.get('schema')!r} is not {SCHEMA}", hint="export the model again")
    unknown, missing = sorted(data.keys() - fields), sorted(fields - data.keys())
    if unknown or missing:
        raise BadInputError(f"{record}: unknown keys {unknown}, missing keys {missing}", hint="export the model again")
    try:
        programs = () if data["program"] is None else (data["program"],)
        for name in (data["model_path"], *data["files"], *programs):
            _require_inside(record, name)
        exported = ExportedModel.from_dict(data | {"model_path": record.parent / data["model_path"]})
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{record} cannot be read: {error!r}", hint="export the model again") from error
    if verify:
        _verify_files(record, exported)
    return exported


def combine_hashes(files: Mapping[str, str]) -> str:
    """Returns one hash for a model: the file's own when there is one file, else a hash of all; names do not count."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hash_json(sorted(files.values()))


def _require_inside(record: Path, name: object) -> None:
    """A record may come from anywhere: it must not point out of its folder."""
    if not isinstance(name, str) or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        raise BadInputError(f"{record}: file {name!r} is not beside the record", hint="do not use this record")


def _verify_files(record: Path, exported: ExportedModel) -> None:
    programs = {} if exported.program is None else {exported.program: exported.program_sha256}
    for name, sha256 in (*exported.files.items(), *programs.items()):
        path = record.parent / name
        if not path.is_file():
            raise BadInputError(f"{path} is missing; {record.name} lists it", hint="export the model again")
        if hash_file(path) != sha256:
            raise BadInputError(f"{path} was changed after {record.name} was written", hint="export the model again")


def _shorten_count(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
