"""The record of an exported model: what it is, where it came from, and how it follows its source.

It lies beside the model as `STEM.export.json`. A model is used only while its hash is the record's.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from modelwright.core.errors import BadInputError
from modelwright.core.files import hash_file, hash_json, is_plain_file
from modelwright.core.records.codec import (
    Amount,
    Cosine,
    Count,
    FileName,
    Line,
    Record,
    Sha256,
    Share,
    decode,
)  # fmt: skip
from modelwright.core.records.seal import read_sealed, write_sealed
from modelwright.core.records.signature import Signature

RECORD_SUFFIX = ".export.json"
PROGRAM_SUFFIX = ".program.pt2"
"""Not `.pt2` alone: that is what users call the program that they export from."""
PROGRAM_CALL_FILE = "modelwright-call.json"
"""Inside a saved program: `inputs` and `outputs`, ONNX name -> place among the program's flat inputs or outputs."""


_HINT = "export the model again"


class ProgramCall(Record):
    """How the names of ONNX map to a saved program, as `PROGRAM_CALL_FILE` in it says.

    Attributes:
        inputs: Name -> place among the program's flat inputs.
        outputs: Name -> place among its flat outputs.
    """

    inputs: Mapping[str, Count]
    outputs: Mapping[str, Count]


class OutputError(Record):
    """How far one output is from the source's; see `OutputFidelity`."""

    max_abs_error: Amount | None
    relative_l2_error: Amount | None
    cosine: Cosine | None
    equal_share: Share | None


class SourceComparison(Record):
    """How a model follows the source that it was exported from.

    Attributes:
        on: `samples` or `example inputs`.
        samples: That the two were compared on.
        inferences: In all, those in other batches too.
        tolerance: Largest relative L2 error that passes.
        worst_output: As in `Fidelity`.
        outputs: Name -> errors.
    """

    on: Line
    samples: Count
    inferences: Count
    tolerance: Amount
    worst_output: str | None
    outputs: Mapping[str, OutputError]


class ExportSource(Record):
    """What a model was exported from.

    Attributes:
        kind: Of the source.
        path: As the user wrote it; of a model of a hub, `owner/name@commit`.
        sha256: Of all that decides the source: code, weights, data files.
        files: Name -> SHA-256.
        weights_sha256: Of the state dict; absent for an ONNX source.
    """

    kind: Literal["onnx", "pt2", "factory", "transformers"]
    path: str
    sha256: Sha256
    files: Mapping[str, Sha256]
    weights_sha256: Sha256 | UnsetType = UNSET


class SourceModel(Record):
    """What manifests and results say of the FP32 model and of its source."""

    kind: Literal["onnx", "pt2", "factory", "transformers"]
    path: str
    sha256: Sha256
    num_parameters: Count
    opset: Count
    onnx_sha256: Sha256
    onnx_size_bytes: Count
    comparison: SourceComparison | None


class ExportedModel(Record):
    """A verified FP32 ONNX model.

    Attributes:
        model_path: The ONNX file.
        signature: Its inputs and outputs.
        source: What it was exported from.
        num_parameters: Weights, those that are stored as integers among them.
        opset: Of the default ONNX domain.
        sha256: Of the model; of all its files together when the weights lie in files of their own.
        files: Name relative to the model's folder -> SHA-256: the model and its external data.
        size_bytes: Of these files.
        comparison: With its source; None with `comparison_reason`.
        comparison_reason: Why the model was not compared with its source.
        program: Name of the source as a saved `torch.export` program beside the model, FP32 and in evaluation mode,
            without example inputs; None for an ONNX source, and for a module that torch cannot save.
        program_sha256: Of that file; the same source gives the same hash.
        notes: Sentences for the user.
        versions: Package -> version of what made and checked it.
    """

    schema: Literal[3] = 3
    model_path: Path
    signature: Signature
    source: ExportSource
    num_parameters: Count
    opset: Count
    sha256: Sha256
    files: Mapping[FileName, Sha256]
    size_bytes: Count
    comparison: SourceComparison | None
    comparison_reason: str | None
    notes: tuple[str, ...]
    versions: Mapping[str, str]
    program: FileName | None = None
    program_sha256: Sha256 | None = None

    @property
    def program_path(self) -> Path | None:
        """The saved program, absolute; None where there is none."""
        return None if self.program is None else self.model_path.resolve().parent / self.program

    def describe_source(self) -> SourceModel:
        """Returns what manifests and results say of the FP32 model and of its source."""
        return SourceModel(
            kind=self.source.kind,
            path=self.source.path,
            sha256=self.source.sha256,
            num_parameters=self.num_parameters,
            opset=self.opset,
            onnx_sha256=self.sha256,
            onnx_size_bytes=self.size_bytes,
            comparison=self.comparison,
        )

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
            errors = [output.relative_l2_error or 0.0 for output in self.comparison.outputs.values()]
            count = self.comparison.samples
            parts.append(f"relative error {max(errors, default=0.0):.1e} on {count} input{'s' if count != 1 else ''}")
        return ", ".join(parts)


def record_path(model_path: Path) -> Path:
    """Returns where the record of a model lies: `model.onnx` -> `model.export.json`."""
    return model_path.with_name(model_path.stem + RECORD_SUFFIX)


def save_exported(exported: ExportedModel) -> Path:
    """Writes the record beside the model; the last step of an export."""
    path = record_path(exported.model_path)
    write_sealed(path, replace(exported, model_path=Path(exported.model_path.name)))
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
    exported, _ = read_sealed(ExportedModel, record, what="the record of an exported model", hint=_HINT)
    # A record may come from anywhere: it must not point out of its folder.
    name = decode(FileName, str(exported.model_path), where=f"{record}: model_path")
    if name not in exported.files:
        raise BadInputError(f"{record}: model_path: it has no hash in files", hint=_HINT)
    exported = replace(exported, model_path=record.parent / name)
    if verify:
        _verify_files(record, exported)
    return exported


def combine_hashes(files: Mapping[str, str]) -> str:
    """Returns one hash for a model: the file's own when there is one file, else a hash of all; names do not count."""
    if len(files) == 1:
        return next(iter(files.values()))
    return hash_json(sorted(files.values()))


def _verify_files(record: Path, exported: ExportedModel) -> None:
    programs = {} if exported.program is None else {exported.program: exported.program_sha256}
    for name, sha256 in (*exported.files.items(), *programs.items()):
        path = record.parent / name
        if not is_plain_file(record.parent, name):
            fault = "is no plain file in this folder" if path.exists() else "is missing"
            raise BadInputError(f"{path} {fault}; {record.name} lists it", hint=_HINT)
        if hash_file(path) != sha256:
            raise BadInputError(f"{path} was changed after {record.name} was written", hint=_HINT)


def _shorten_count(count: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.1f}{letter}"
    return str(count)
