"""The parent side of an export: places, atomic writing, the child and the record. Imports nothing heavy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, UsageError
from modelwright.core.files import explain_os_error, made_folder, scratch_directory
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.records.codec import encode
from modelwright.core.records.exported import ExportedModel, load_exported, record_path, save_exported
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters.source import Source, parse_source

TOLERANCE = 1e-3
"""Relative L2 error between FP32 and FP32; see `comparison.TOLERANCE`, which needs onnxruntime to import."""
TIMEOUT_S = 3600.0


def export(
    source: str | Path,
    out: str | Path,
    *,
    samples: SampleRef | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
) -> ExportedModel:
    """Turns a source into a verified ONNX model and writes its record beside it.

    An ONNX model is passed through unchanged, with its data files. A PyTorch module is exported with a dynamic batch,
    or a fixed one where that fails, and compared with its source; the captured program is saved beside the model, for
    the targets that run PyTorch. There is either all of the result or nothing.

    Args:
        source: `model.onnx`, `model.pt2` (`torch.export.save`), or `file.py:factory`; the factory returns an
            `nn.Module` or (module, example inputs), and `module.output_names` may name the outputs.
        out: The ONNX file to write; its folder is made.
        samples: Inputs to compare on, up to 32; they also serve a factory without example inputs.
        tolerance: Relative L2 error that no output may exceed.
        overwrite: Replace an existing file.
        timeout_s: Give up after this many seconds.
        progress: Takes a line about what is going on.

    Returns:
        The record, which also lies beside the model as `STEM.export.json`.

    Raises:
        BadInputError: The source cannot be used, or `out` exists or cannot be written.
        BuildFailedError: The source cannot be converted, its ONNX form does not follow it, or the disk is full.
        ToolchainMissingError: torch, onnx or onnxruntime is absent or broken.
        UsageError: A tolerance that is not positive.
    """
    if not tolerance > 0:
        raise UsageError(f"a tolerance of {tolerance} makes no sense", hint="give a positive number, such as 1e-3")
    out = Path(out)
    parsed = parse_source(source)
    in_place = _check_out(parsed, out, overwrite=overwrite)
    with explain_os_error(out), made_folder(out.parent):
        if in_place:
            fields = _run(parsed, out.parent, out.name, samples, tolerance, timeout_s, progress)
            exported = _to_record(parsed, out, fields)
        else:
            with scratch_directory(out.parent) as scratch:
                fields = _run(parsed, Path(scratch), out.name, samples, tolerance, timeout_s, progress)
                exported = _to_record(parsed, out, fields)
                _place(Path(scratch), out, exported, overwrite=overwrite)
        save_exported(exported)
    return exported


def _run(
    source: Source,
    directory: Path,
    name: str,
    samples: SampleRef | None,
    tolerance: float,
    timeout_s: float,
    progress: Progress | None,
) -> dict[str, Any]:
    fields = run_in_child(
        "modelwright.exporters.torch.worker:convert",
        {
            "kind": source.kind,
            "path": str(source.path),
            "function": source.function,
            "directory": str(directory),
            "name": name,
            "samples": encode(samples),
            "tolerance": tolerance,
        },
        purpose=f"{'checking' if source.kind == 'onnx' else 'exporting'} {source.text}",
        # A file that crashes the tools that read it is a bad file; a crash while converting is the converter's.
        crash_error=BuildFailedError if source.kind == "factory" else BadInputError,
        timeout_s=timeout_s,
        progress=progress,
    )
    assert isinstance(fields, dict)
    return fields


def _to_record(source: Source, out: Path, fields: dict[str, Any]) -> ExportedModel:
    described = {"kind": source.kind, "path": source.text, **fields["source"]}
    return ExportedModel.from_dict({**fields, "source": described, "model_path": str(out)})


def _check_out(source: Source, out: Path, *, overwrite: bool) -> bool:
    """Checks the place of the result; returns whether the source is an ONNX model that lies there already.

    Raises:
        BadInputError: It exists, is a folder, or is not called `.onnx`.
    """
    if out.suffix != ".onnx":
        raise BadInputError(f"{out} is no name for an ONNX model", hint=f"call it {out.name}.onnx")
    if out.is_dir():
        raise BadInputError(f"{out} is a folder", hint=f"give the file: {out / 'model.onnx'}")
    if not out.exists():
        return False
    if source.kind == "onnx" and out.samefile(source.path):
        return True
    if not overwrite:
        raise BadInputError(f"{out} exists", hint="choose another --out, or add --overwrite")
    return False


def _place(staging: Path, out: Path, exported: ExportedModel, *, overwrite: bool) -> None:
    """Moves the files to their places, the model last, so that it never lacks its data.

    Raises:
        BadInputError: A file that is to lie beside the model exists.
    """
    data = _list_beside(exported)
    for name in data:
        if (out.parent / name).exists() and not overwrite:
            raise BadInputError(f"{out.parent / name} exists", hint="choose another --out, or add --overwrite")
    stale = _data_of_older(out) - set(data)
    # A record never describes another model than the one beside it.
    record_path(out).unlink(missing_ok=True)
    for name in data:
        (out.parent / name).parent.mkdir(parents=True, exist_ok=True)
        (staging / name).replace(out.parent / name)
    (staging / out.name).replace(out)
    for name in stale:
        (out.parent / name).unlink(missing_ok=True)


def _data_of_older(out: Path) -> set[str]:
    """Returns the other files of an export that is being replaced, as its record lists and hashes them."""
    try:
        return set(_list_beside(load_exported(out)))
    except BadInputError:
        return set()


def _list_beside(exported: ExportedModel) -> list[str]:
    """Returns the files that lie beside the model and belong to it: its data and the saved program."""
    names = [name for name in exported.files if name != exported.model_path.name]
    return names if exported.program is None else [*names, exported.program]
