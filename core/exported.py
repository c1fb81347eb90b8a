"""The record of an export: a verified FP32 ONNX model and where it came from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json, write_json
from modelwright.core.signature import Signature


@dataclass(frozen=True, kw_only=True)
class ExportedModel:
    """A verified ONNX model, and the record beside it.

    Attributes:
        model_path: The ONNX file; its external data, if any, lie beside it.
        signature: Names, dtypes, shapes.
        source: `kind` (`onnx`, `pt2`, `factory`), `path`, `sha256`.
        num_parameters: Elements of all float weights.
        opset: Of the default domain.
        sha256: Of the ONNX file and its external data.
        size_bytes: Likewise.
        comparison: With the source: `samples`, and by output `max_abs_error`, `relative_l2_error`; None with
            `comparison_reason`.
        comparison_reason: Why there is none: the source is the ONNX model itself.
        versions: Package -> version of what made it.
        notes: Sentences for the user.
    """

    model_path: Path
    signature: Signature
    source: Mapping[str, Any]
    num_parameters: int
    opset: int
    sha256: str
    size_bytes: int
    comparison: Mapping[str, Any] | None
    comparison_reason: str | None
    versions: Mapping[str, str]
    notes: Sequence[str] = ()

    def describe_source(self) -> dict[str, Any]:
        """Returns what manifests and results say of the FP32 model."""
        return {
            **self.source,
            "num_parameters": self.num_parameters,
            "opset": self.opset,
            "onnx_sha256": self.sha256,
            "onnx_size_bytes": self.size_bytes,
            "comparison": self.comparison,
        }

    def summarize(self) -> str:
        """Returns a line: parameters, opset, distance from the source."""
        text = f"{self.num_parameters / 1e6:.2f} M parameters, opset {self.opset}"
        if self.comparison is None:
            return f"{text}, checked"
        return f"{text}, within {self.comparison['relative_l2_error']:.1e} of its source"

    def to_dict(self) -> dict[str, Any]:
        data = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        data["model_path"] = self.model_path.name
        data["signature"] = self.signature.to_dict()
        return data


def record_path(model_path: Path) -> Path:
    """Returns where the record of a model lies: `NAME.export.json`."""
    return model_path.with_name(f"{model_path.stem}.export.json")


def save_exported(exported: ExportedModel) -> None:
    """Writes the record beside the model."""
    write_json(record_path(exported.model_path), exported.to_dict())


def load_exported(model_path: Path) -> ExportedModel:
    """Reads the record beside a model.

    Raises:
        BadInputError: There is none, or it is not one.
    """
    path = record_path(model_path)
    data = read_json(path, "the record of an export")
    try:
        data["signature"] = Signature.from_dict(data["signature"])
        return ExportedModel(**{**data, "model_path": model_path})
    except (KeyError, TypeError) as error:
        raise BadInputError(f"{path} is not the record of an export: {error}", hint="export the model again") from error
