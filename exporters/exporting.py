"""Exports: the parent's side. Everything that reads a model happens in a child process."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from modelwright.core.child import Progress, run_in_child
from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError
from modelwright.core.exported import ExportedModel, record_path, save_exported
from modelwright.core.files import explain_os_error, hash_file, hash_json
from modelwright.core.samples import SampleRef
from modelwright.core.signature import Signature
from modelwright.exporters.source import Source, parse_source

DEFAULT_TOLERANCE = 1e-3
"""Relative L2 error of an output against its source. FP32 kernels of two runtimes differ by about 1e-6 to 1e-4; a
wrong export differs by more than 1e-2."""
TIMEOUT_S = 3600.0


def export(
    source: str | Path,
    out: Path,
    *,
    samples: SampleRef | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportedModel:
    """Exports a source to a verified ONNX model, and writes its record beside it.

    Args:
        source: `model.onnx`, `model.pt2` or `file.py:factory`.
        out: The ONNX file to write; data over 2 GB go into files beside it.
        samples: Real inputs to compare with the source on, and to take example inputs from.
        tolerance: Largest relative L2 error of an output.
        overwrite: Replace an older file.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: The source cannot be read or is not valid, or `out` exists.
        BuildFailedError: PyTorch cannot export it, or the result does not follow its source.
    """
    parsed = parse_source(str(source))
    if out.suffix != ".onnx":
        raise BadInputError(f"{out}: the name of an ONNX file ends in .onnx", hint=f"--out {out}.onnx")
    if out.exists() and not overwrite:
        raise BadInputError(f"{out} exists", hint="choose another --out, or add --overwrite")
    with explain_os_error(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        # Beside the result, so that moving it into place is one step of the file system.
        with tempfile.TemporaryDirectory(prefix=".export-", dir=out.parent) as staging:
            told = _convert(parsed, Path(staging) / out.name, samples, tolerance, progress)
            exported = _make_record(parsed, out, Path(staging), told)
            _move_into_place(Path(staging), out)
        save_exported(exported)
    return exported


def _convert(
    source: Source, staged: Path, samples: SampleRef | None, tolerance: float, progress: Progress | None
) -> dict[str, Any]:
    is_model = source.kind == "onnx"
    result = run_in_child(
        "modelwright.exporters.worker:convert",
        {
            "kind": source.kind,
            "path": str(source.path),
            "function": source.function,
            "out": str(staged),
            "samples": None if samples is None else samples.to_dict(),
            "tolerance": tolerance,
        },
        purpose=f"reading {source}" if is_model else f"exporting {source}",
        crash_error=BadInputError if is_model else BuildFailedError,
        timeout_s=TIMEOUT_S,
        progress=progress,
    )
    assert isinstance(result, dict)
    return result


def _make_record(source: Source, out: Path, staging: Path, told: dict[str, Any]) -> ExportedModel:
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    hashes = {str(path.relative_to(staging)).replace(out.name, "model.onnx"): hash_file(path) for path in files}
    return ExportedModel(
        model_path=out,
        signature=Signature.from_dict(told["signature"]),
        source={"kind": source.kind, "path": str(source), "sha256": _hash_source(source, hashes)},
        num_parameters=told["num_parameters"],
        opset=told["opset"],
        sha256=hash_json(hashes),
        size_bytes=sum(path.stat().st_size for path in files),
        comparison=told["comparison"],
        comparison_reason=told["comparison_reason"],
        versions=told["versions"],
        notes=tuple(told["notes"]),
    )


def _hash_source(source: Source, hashes: dict[str, str]) -> str:
    """Hashes what the user gave. A factory may read weights from anywhere, so its export counts for them."""
    own = hash_file(source.path)
    return own if source.kind == "pt2" else hash_json({"file": own if source.function else None, "export": hashes})


def _move_into_place(staging: Path, out: Path) -> None:
    """Moves data files first and the model last: a model whose data are missing must never be seen."""
    try:
        for path in sorted(staging.rglob("*"), key=lambda path: path.name == out.name):
            if not path.is_file():
                continue
            final = out.parent / path.relative_to(staging)
            final.parent.mkdir(parents=True, exist_ok=True)
            path.replace(final)
    except (OSError, ModelwrightError):
        record_path(out).unlink(missing_ok=True)
        raise
