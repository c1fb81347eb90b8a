"""The child side of an export: reads the source, writes ONNX into a staging folder, checks and compares it."""

from __future__ import annotations

import importlib.metadata
import platform
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

from modelwright.core.errors import BadInputError, ModelwrightError
from modelwright.core.files import hash_file, hash_json
from modelwright.core.onnx.external_data import copy_external_files, find_external_files
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import PROGRAM_SUFFIX, combine_hashes, record_path
from modelwright.core.records.signature import Signature, TensorSpec
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.sample_set import LABELS, SampleRef, open_samples
from modelwright.core.system_errors import explain_os_error
from modelwright.exporters.cache import origin_path
from modelwright.exporters.onnx.adapt import adapt_model
from modelwright.exporters.onnx.file import read_graph, read_signature
from modelwright.exporters.onnx.validate import ValidatedModel, validate_model
from modelwright.exporters.trace import Trace, watch

if TYPE_CHECKING:
    from modelwright.exporters.torch.export import Captured
    from modelwright.exporters.torch.source import TorchSource

Progress = Callable[[str], None]


def convert(
    kind: str,
    path: str,
    folder: str,
    function: str | None,
    directory: str,
    name: str,
    samples: dict[str, Any] | None,
    tolerance: float,
    trust: bool,
    progress: Progress,
) -> dict[str, Any]:
    """Makes `directory/name` from a source.

    Args:
        kind: `onnx`, `pt2`, `factory` or `transformers`.
        path: The source's file.
        folder: Where its other files lie.
        function: Of a factory.
        directory: Staging folder; for a model that is passed through in its place, its own folder.
        name: File name of the ONNX model.
        samples: `SampleRef.to_dict`, or None.
        tolerance: Relative L2 error that no output may exceed.
        trust: Whether code in a saved program, or in a folder of transformers, may run.
        progress: Takes the phase that begins.

    Returns:
        `model`: the fields of `ExportedModel` but for `model_path`, and of `source` all but its kind and path.
        `inputs`: what was looked at, as `Inputs`; None with `opaque`, the reason why that cannot be known.

    Raises:
        BadInputError: The source cannot be used.
        BuildFailedError: It cannot be converted, or its ONNX form does not follow it.
    """
    out = Path(directory) / name
    ref = None if samples is None else decode(SampleRef, samples)
    trace = Trace(Path(folder), [out.parent, *([] if ref is None else [ref.path])])
    if kind != "factory":
        trace.note_file(str(Path(folder) / Path(path).name))
    with explain_os_error(out), watch(trace):
        if kind == "onnx":
            model = _pass_through(Path(path), out, ref, trace, progress)
        else:
            model = _convert_torch(kind, Path(path), function, out, ref, tolerance, trace, progress, trust=trust)
    inputs = trace.finish(is_code=kind == "factory" or (kind == "transformers" and trust))
    return {"model": model, "inputs": None if inputs is None else encode(inputs), "opaque": trace.opaque}


def _pass_through(path: Path, out: Path, samples: SampleRef | None, trace: Trace, progress: Progress) -> dict[str, Any]:
    """Copies a model and its data, unless it is in its place already, and checks the copy.

    What would stop runtimes for no good reason is changed in the copy; a model in its place stays as it is.
    """
    progress("reading the ONNX file")
    names = find_external_files(path, read_graph(path))
    ours = {place.name.casefold() for place in (out, record_path(out), origin_path(out))}
    taken = [name for name in names if PurePosixPath(name).parts[0].casefold() in ours]
    if taken:
        raise BadInputError(
            f"{path} has a data file of the name {taken[0]}, which is to be a file of the export",
            hint="save the model again with its data in a file of another name: onnx.save_model(model, path, "
            "save_as_external_data=True, location='weights.bin')",
        )
    for name in names:
        trace.note_file(str(trace.folder / name))
    original, changes = hash_file(path), list[str]()
    if not (out.exists() and out.samefile(path)):
        progress("copying the model")
        copy_external_files(path, names, out.parent)
        shutil.copyfile(path, out)
        fed = () if samples is None else read_arrays(samples.path).keys() - {LABELS}
        with _naming(out, path):
            changes = adapt_model(out, fed)
    with _naming(out, path):
        if samples is not None:  # loading the model may take minutes
            open_samples(samples, read_signature(out, read_graph(out)))
        checked = validate_model(out, progress)
    files = _hash_files(out, names, progress)
    own = {path.name: original} | {name: files[name] for name in names}
    source = {"sha256": combine_hashes(own), "files": own}
    reason = "the source is ONNX already, " + ("no number was changed" if changes else "nothing was converted")
    return _assemble(out, checked, files, source, None, reason, changes)


def _convert_torch(
    kind: str,
    path: Path,
    function: str | None,
    out: Path,
    samples: SampleRef | None,
    tolerance: float,
    trace: Trace,
    progress: Progress,
    *,
    trust: bool,
) -> dict[str, Any]:
    """Exports with a dynamic batch, and with a fixed one where that fails."""
    from modelwright.exporters.torch.outputs import plain_outputs
    from modelwright.exporters.torch.source import import_torch, load_factory, load_program
    from modelwright.exporters.transformers.loading import load_folder

    if kind == "pt2":
        progress("loading the saved program")
        source = load_program(path, samples, trust=trust)
        checked, captured, comparison = _export_once(source, out, samples, tolerance, progress, dynamic=True)
        if not captured.batch_is_dynamic:
            source.notes.append(
                f"{source.name} was captured with a fixed batch; capture it with a dynamic one to vary it"
            )
    else:
        if kind == "transformers":
            progress("loading the model")
            source = load_folder(trace.folder, samples, trace, trust=trust)
        else:
            assert function is not None
            progress(f"running {path.name}:{function}")
            source = load_factory(path, function, samples, trace)
            plain_outputs(import_torch(), source)
        try:
            checked, captured, comparison = _export_once(source, out, samples, tolerance, progress, dynamic=True)
        except _UnfitSamplesError as error:
            raise BadInputError(error.message, hint=error.hint, detail=error.detail) from None
        except ModelwrightError as error:
            progress("exporting again with a fixed batch")
            checked, captured, comparison = _export_once(source, out, samples, tolerance, progress, dynamic=False)
            rows = _batch_of(captured)
            source.notes.append(f"the batch is fixed at {rows}: with a dynamic one, {_shorten(error.message)}")
    if samples is None:
        source.notes.append("compared with its source on the example inputs only: give samples for a real proof")
    program = _save_program(source, captured, out, progress)
    names = [file.name for file in out.parent.iterdir() if file.name not in (out.name, program["program"])]
    files = _hash_files(out, names, progress)
    described = {
        "sha256": hash_json({"files": source.files, "weights": source.weights_sha256}),
        "files": source.files,
        "weights_sha256": source.weights_sha256,
    }
    return _assemble(out, checked, files, described, comparison, None, source.notes) | program


def _save_program(source: TorchSource, captured: Captured, out: Path, progress: Progress) -> dict[str, Any]:
    """Returns the fields of the record that tell of the saved program."""
    from modelwright.exporters.torch.export import write_program

    progress("saving the captured program")
    path = out.with_name(out.stem + PROGRAM_SUFFIX)
    saved = write_program(source, captured, path)
    return {"program": path.name if saved else None, "program_sha256": hash_file(path) if saved else None}


def _export_once(
    source: TorchSource, out: Path, samples: SampleRef | None, tolerance: float, progress: Progress, *, dynamic: bool
) -> tuple[ValidatedModel, Captured, dict[str, Any]]:
    from modelwright.exporters.onnx.follows import compare_with_source
    from modelwright.exporters.torch.export import capture, write_onnx

    for leftover in out.parent.iterdir():
        leftover.unlink()
    progress("capturing the module with torch.export")
    captured = capture(source, dynamic=dynamic)
    if source.program is None and dynamic and samples is not None:
        _require_fitting(samples, captured)
    progress("converting to ONNX")
    write_onnx(source, captured, out)
    checked = validate_model(out, progress)
    progress("comparing with the source")
    comparison = compare_with_source(out, checked.signature, source, captured, samples, tolerance)
    return checked, captured, comparison


class _UnfitSamplesError(BadInputError):
    """Samples that no other way to export would make fit."""


def _require_fitting(samples: SampleRef, captured: Captured) -> None:
    """Refuses samples that the inputs of a module do not take, before minutes are spent on converting it."""
    inputs = []
    for name, leaf, batched in zip(captured.input_names, captured.leaves, captured.batched, strict=True):
        rest = [int(size) for size in leaf.shape]
        shape: tuple[int | str, ...] = ("batch", *rest[1:]) if batched else tuple(rest)
        inputs.append(TensorSpec(name=name, dtype=str(leaf.numpy().dtype), shape=shape))
    try:
        open_samples(samples, Signature(inputs=tuple(inputs), outputs=()))
    except BadInputError as error:
        raise _UnfitSamplesError(error.message, hint=error.hint, detail=error.detail) from error


@contextmanager
def _naming(out: Path, path: Path) -> Iterator[None]:
    """Lets errors about the staged copy name the user's file."""
    try:
        yield
    except BadInputError as error:
        message = error.message.replace(str(out), str(path))
        raise BadInputError(message, hint=error.hint, detail=error.detail) from error.__cause__


def _hash_files(out: Path, names: list[str], progress: Progress) -> dict[str, str]:
    progress("hashing")
    return {name: hash_file(out.parent / name) for name in [out.name, *names]}


def _batch_of(captured: Captured) -> int | None:
    rows = [int(leaf.shape[0]) for leaf, flag in zip(captured.leaves, captured.batched, strict=True) if flag]
    return rows[0] if rows else None


def _shorten(message: str) -> str:
    return message if len(message) <= 300 else message[:297] + "..."


def _assemble(
    out: Path,
    checked: ValidatedModel,
    files: dict[str, str],
    source: dict[str, Any],
    comparison: dict[str, Any] | None,
    reason: str | None,
    notes: list[str],
) -> dict[str, Any]:
    packages = ["modelwright", "onnx", "onnxruntime", *(["torch", "onnxscript"] if comparison is not None else [])]
    versions = {"python": platform.python_version()}
    for package in packages:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "signature": encode(checked.signature),
        "source": source,
        "num_parameters": checked.num_parameters,
        "opset": checked.opset,
        "sha256": combine_hashes(files),
        "files": files,
        "size_bytes": sum((out.parent / name).stat().st_size for name in files),
        "comparison": comparison,
        "comparison_reason": reason,
        "notes": [*notes, *checked.notes],
        "versions": versions,
    }
