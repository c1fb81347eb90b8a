"""The parent side of an export: places, atomic writing, the child and the record. Imports nothing heavy.

An export whose source and toolchain have not changed is not made again: see `modelwright.exporters.cache`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from modelwright.core.errors import BadInputError, BuildFailedError, UsageError
from modelwright.core.process.child import Progress, run_in_child
from modelwright.core.process.offline import OFFLINE
from modelwright.core.records.codec import decode, encode
from modelwright.core.records.exported import ExportedModel, save_exported
from modelwright.core.samples.sample_set import SampleRef
from modelwright.core.scratch import made_folder, scratch_directory
from modelwright.core.system_errors import explain_os_error
from modelwright.exporters import cache
from modelwright.exporters.inputs import Inputs
from modelwright.exporters.placing import place_export, require_free
from modelwright.exporters.source import Source, parse_source

TOLERANCE = 1e-3
"""Relative L2 error between FP32 and FP32; see `comparison.TOLERANCE`, which needs onnxruntime to import."""
TIMEOUT_S = 3600.0


@dataclass(frozen=True, kw_only=True)
class Export:
    """An exported model, and how it came to be.

    Attributes:
        model: The record.
        reused: Whether it was made by an earlier run, from the same source.
        created: When it was made, in UTC, ISO 8601.
        unseen: Why it will be made again each time: what its source depends on cannot be known. None otherwise.
    """

    model: ExportedModel
    reused: bool
    created: str
    unseen: str | None = None

    def describe(self) -> dict[str, Any]:
        """Returns what results say of it."""
        return {"reused": self.reused, "exported": self.created}

    def summarize(self) -> str:
        """Returns a line for people: the model, and whether it is an earlier one."""
        line = self.model.summarize()
        if self.reused:
            age = dt.datetime.now(dt.UTC) - dt.datetime.fromisoformat(self.created)
            return f"{line}, unchanged (made {format_age(age.total_seconds())} ago)"
        return line if self.unseen is None else f"{line}; it will be made anew each time: {self.unseen}"


def format_age(seconds: float) -> str:
    """Returns a span of time in the largest unit that it fills: `3 minutes`."""
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return "less than a minute"


def export(
    source: str | Path,
    out: str | Path,
    *,
    samples: SampleRef | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    fresh: bool = False,
    trust: bool = False,
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
) -> ExportedModel:
    """Turns a source into a verified ONNX model and writes its record beside it; `find_or_export` says how.

    Returns:
        The record, which also lies beside the model as `STEM.export.json`.
    """
    return find_or_export(
        source,
        out,
        samples=samples,
        tolerance=tolerance,
        overwrite=overwrite,
        fresh=fresh,
        trust=trust,
        timeout_s=timeout_s,
        progress=progress,
    ).model


def find_or_export(
    source: str | Path,
    out: str | Path,
    *,
    samples: SampleRef | None = None,
    tolerance: float = TOLERANCE,
    overwrite: bool = False,
    replace_own: bool = False,
    fresh: bool = False,
    trust: bool = False,
    timeout_s: float = TIMEOUT_S,
    progress: Progress | None = None,
    review: Callable[[ExportedModel], None] = lambda _exported: None,
) -> Export:
    """Turns a source into a verified ONNX model, or finds that an earlier run did and nothing has changed since.

    An ONNX model is passed through unchanged, with its data files. A PyTorch module is exported with a dynamic batch,
    or a fixed one where that fails, and compared with its source; the captured program is saved beside the model, for
    the targets that run PyTorch. There is either all of the result or nothing.

    Args:
        source: `model.onnx`, `model.pt2` (`torch.export.save`), a folder of transformers that classifies or embeds
            texts, or `file.py:factory`; the factory returns an `nn.Module` or (module, example inputs), and
            `module.output_names` may name the outputs.
        out: The ONNX file to write; its folder is made.
        samples: Inputs to compare on, up to 32; they also serve a factory without example inputs.
        tolerance: Relative L2 error that no output may exceed.
        overwrite: Replace an existing file that was made from something else. What is to lie beside the model replaces
            files of an earlier export only, whatever is said here.
        replace_own: Replace it if an earlier export left it and nobody has changed it since.
        fresh: Make it again although nothing that can be seen has changed.
        trust: Run code that a saved program, or a folder of transformers, holds; see `core/saved_program.py`.
        timeout_s: Give up after this many seconds.
        progress: Takes a line about what is going on.
        review: Takes the record before anything is replaced, and may raise.

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
    in_place = _check_name(parsed, out)
    report = progress or (lambda _text: None)
    with explain_os_error(out), made_folder(out.parent):
        if in_place:
            made = _run(parsed, out.parent, out.name, samples, tolerance, timeout_s, progress, trust=trust)
            exported = _to_record(parsed, out, made["model"])
            save_exported(exported)
            return Export(model=exported, reused=False, created=_now())
        request = cache.hash_request(parsed, samples, tolerance)
        found = None if fresh else cache.find_beside(out, request, parsed.folder, report)
        if found is not None:
            exported = _of_source(found[0], parsed)
            if exported != found[0]:
                save_exported(exported)
            return Export(model=exported, reused=True, created=found[1].created)
        require_free(out, overwrite=overwrite, replace_own=replace_own)
        origin: cache.Origin | None
        with scratch_directory(out.parent) as scratch:
            staged = Path(scratch) / out.name
            found = None if fresh else cache.find_cached(staged, request, parsed.folder)
            if found is not None:
                exported, origin, unseen = _of_source(cache.rename_export(found[0], out), parsed), found[1], None
            else:
                made = _run(parsed, staged.parent, out.name, samples, tolerance, timeout_s, progress, trust=trust)
                exported, unseen = _to_record(parsed, out, made["model"]), made["opaque"]
                origin = None if unseen else _to_origin(request, made["inputs"], exported)
            review(exported)
            place_export(staged.parent, out, exported, origin, replace_own=overwrite or replace_own)
        if origin is not None and found is None and parsed.kind != "onnx":
            cache.keep(exported, origin)
    created = _now() if origin is None else origin.created
    return Export(model=exported, reused=found is not None, created=created, unseen=unseen)


def _run(
    source: Source,
    directory: Path,
    name: str,
    samples: SampleRef | None,
    tolerance: float,
    timeout_s: float,
    progress: Progress | None,
    *,
    trust: bool,
) -> dict[str, Any]:
    made = run_in_child(
        "modelwright.exporters.torch.worker:convert",
        {
            "kind": source.kind,
            "path": str(source.path),
            "folder": str(source.folder),
            "function": source.function,
            "directory": str(directory),
            "name": name,
            "samples": encode(samples),
            "tolerance": tolerance,
            "trust": trust,
        },
        purpose=f"{'checking' if source.kind == 'onnx' else 'exporting'} {source.text}",
        # A file that crashes the tools that read it is a bad file; a crash while converting is the converter's.
        crash_error=BuildFailedError if source.kind in ("factory", "transformers") else BadInputError,
        timeout_s=timeout_s,
        progress=progress,
        environment=OFFLINE if source.kind == "transformers" else None,
    )
    assert isinstance(made, dict)
    return made


def _to_record(source: Source, out: Path, fields: dict[str, Any]) -> ExportedModel:
    described = {"kind": source.kind, "path": source.text, **fields["source"]}
    return decode(ExportedModel, {**fields, "source": described, "model_path": str(out)})


def _of_source(exported: ExportedModel, source: Source) -> ExportedModel:
    """Returns the record of a reused export, with its source spelled as now."""
    return replace(exported, source=replace(exported.source, path=source.text))


def _to_origin(request: str, inputs: dict[str, Any], exported: ExportedModel) -> cache.Origin:
    return cache.Origin(
        request=request,
        inputs=decode(Inputs, inputs, where="the inputs of the export"),
        onnx_sha256=exported.sha256,
        program_sha256=exported.program_sha256,
        created=_now(),
    )


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")


def _check_name(source: Source, out: Path) -> bool:
    """Checks the name of the result; returns whether the source is an ONNX model that lies there already.

    Raises:
        BadInputError: It is a folder, or is not called `.onnx`.
    """
    if out.is_dir():
        raise BadInputError(f"{out} is a folder", hint=f"give the file: {out / 'model.onnx'}")
    if out.suffix != ".onnx":
        raise BadInputError(f"{out} is no name for an ONNX model", hint=f"call it {out.name}.onnx")
    return source.kind == "onnx" and out.exists() and out.samefile(source.path)
