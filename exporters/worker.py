"""Exports: the child's side. Reads the source, writes and validates the ONNX model, compares the two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.child import Progress
from modelwright.core.errors import BuildFailedError
from modelwright.core.fidelity import FidelityMeter, OutputFidelity
from modelwright.core.reference import ReferenceModel
from modelwright.core.samples import Array, SampleRef, open_samples, read_arrays
from modelwright.core.signature import Signature
from modelwright.exporters.validate import validate_model

COMPARED_SAMPLES = 32

Feeds = Mapping[str, Array]


def convert(
    kind: str,
    path: str,
    function: str | None,
    out: str,
    samples: dict[str, Any] | None,
    tolerance: float,
    progress: Progress,
) -> dict[str, Any]:
    """Writes the ONNX model to `out` and returns what the record says of it."""
    ref = None if samples is None else SampleRef.from_dict(samples)
    if kind == "onnx":
        return _pass_through(Path(path), Path(out), progress)
    return _export_program(kind, Path(path), function, Path(out), ref, tolerance, progress)


def _pass_through(path: Path, out: Path, progress: Progress) -> dict[str, Any]:
    facts = validate_model(path, progress)
    progress("copying")
    _copy_model(path, facts.data_files, out)
    return {
        **facts.to_dict(),
        "comparison": None,
        "comparison_reason": "the source is the ONNX model itself",
        "versions": _versions("onnx", "onnxruntime"),
    }


def _copy_model(path: Path, data_files: list[str], out: Path) -> None:
    """Copies an ONNX file and its external data, which keep their names because the model refers to them."""
    shutil.copyfile(path, out)
    for name in data_files:
        target = out.parent / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path.parent / name, target)


def _export_program(
    kind: str,
    path: Path,
    function: str | None,
    out: Path,
    ref: SampleRef | None,
    tolerance: float,
    progress: Progress,
) -> dict[str, Any]:
    from modelwright.exporters.torch_program import load_factory, load_program

    progress("loading the PyTorch program")
    arrays = None if ref is None else read_arrays(ref.path)
    program = load_program(path) if kind == "pt2" else load_factory(path, str(function), arrays)
    progress("torch.onnx.export")
    notes = program.export(out)
    facts = validate_model(out, progress)
    progress("comparing with the source")
    count, fidelity = _compare(program.run, out, _feeds(ref, facts.signature, program.example_feeds))
    worst = max(fidelity, key=lambda output: _distance(output))
    if _distance(worst) > tolerance:
        raise BuildFailedError(
            f"the ONNX model does not follow its source: output {worst.name} is off by {_distance(worst):.2e} "
            f"(relative L2; {tolerance:g} is allowed), at most {worst.max_abs_error} in one element",
            hint="look for operations that depend on data or on random numbers; call eval() in the factory",
        )
    return {
        **facts.to_dict(),
        "notes": [*notes, *facts.notes],
        "comparison": {
            "samples": count,
            "on": "samples" if ref is not None else "the factory's example inputs",
            "relative_l2_error": _distance(worst),
            "max_abs_error": max(output.max_abs_error or 0.0 for output in fidelity),
            "outputs": {
                output.name: {"relative_l2_error": _distance(output), "max_abs_error": output.max_abs_error}
                for output in fidelity
            },
        },
        "comparison_reason": None,
        "versions": _versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }


def _distance(output: OutputFidelity) -> float:
    """Returns an output's relative L2 error; infinite for a wrong shape or NaN."""
    if output.shape_fault is not None or output.nonfinite:
        return float("inf")
    if output.relative_l2_error is not None:
        return output.relative_l2_error
    if output.max_abs_error is not None:
        return output.max_abs_error  # FP32's output is zero everywhere: the error itself is what is left
    return 1.0 - (output.cosine_mean if output.cosine_mean is not None else 1.0)


def _feeds(ref: SampleRef | None, signature: Signature, examples: Feeds) -> Iterator[Feeds]:
    if ref is None:
        yield examples
        return
    yield from open_samples(ref, signature).feeds(limit=COMPARED_SAMPLES)


def _compare(
    run_source: Callable[[Feeds], list[Array]], model_path: Path, feeds: Iterator[Feeds]
) -> tuple[int, tuple[OutputFidelity, ...]]:
    """Runs source and export on consecutive inputs; outputs are matched by position."""
    meter = FidelityMeter()
    model = ReferenceModel(model_path)
    count = 0
    for item in feeds:
        got = model.run(item)
        expected = run_source(item)
        if len(expected) != len(got):
            raise BuildFailedError(f"the source has {len(expected)} outputs, the ONNX model {len(got)}")
        meter.add({name: np.asarray(value) for name, value in zip(got, expected, strict=True)}, got)
        count += 1
    return count, meter.result().outputs


def _versions(*names: str) -> dict[str, str]:
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in names}
