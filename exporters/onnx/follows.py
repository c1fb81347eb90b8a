"""An exported model against its PyTorch source, both in FP32, on consecutive inputs. For child processes only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.quantized import find_own_scales
from modelwright.core.outputs.fidelity import Fidelity, FidelityMeter
from modelwright.core.outputs.output_meter import OutputFidelity
from modelwright.core.outputs.reference import ReferenceModel
from modelwright.core.records.signature import Signature
from modelwright.core.samples.sample_set import SampleRef, open_samples
from modelwright.exporters.torch.export import Captured, call_module
from modelwright.exporters.torch.source import TorchSource, import_torch

Array = npt.NDArray[Any]

SAMPLE_LIMIT = 32
TOLERANCE = 1e-3
"""Relative L2 error: FP32 against FP32 differs by the order of sums, some 1e-7 to 1e-5; a wrong operator by 1e-2 up."""
_ROUNDING_FACTOR = 5
"""More for models that round their own activations: values at the edge of a step fall to its other side by the order of
sums. ResNet-20, trained with 4-bit weights and 8-bit activations, differed by 1.2e-3."""
_PEAK_TOLERANCE_FACTOR = 10
"""One element may differ by this many tolerances of the output's largest value."""
_NEGLIGIBLE_ERROR = 1e-6
"""Outputs that are zero but for rounding have no relative error that means anything."""
_LEAST_EQUAL_SHARE = 0.95
"""Of integer outputs: an index may flip where two scores tie."""
_ODD_BATCH = 3
"""A batch that the model was not captured with."""


def compare_with_source(
    path: Path,
    signature: Signature,
    source: TorchSource,
    captured: Captured,
    samples: SampleRef | None,
    tolerance: float,
) -> dict[str, Any]:
    """Runs both models on up to 32 samples and on the example inputs, and compares their outputs.

    Args:
        path: The ONNX model.
        signature: Of it.
        source: The PyTorch module.
        captured: How it is called.
        samples: None compares on the example inputs alone, row by row and in batches.
        tolerance: Relative L2 error that no output may exceed; more is allowed where the model rounds activations.

    Returns:
        What `ExportedModel.comparison` holds.

    Raises:
        BuildFailedError: The ONNX model does not follow its source; names the worst output.
        BadInputError: The samples do not fit, or ONNX Runtime fails on them.
    """
    torch = import_torch()
    tolerance = widen_tolerance(path, tolerance)
    meter = FidelityMeter()
    peaks: dict[str, float] = {}
    count = 0
    with ReferenceModel(path) as model:
        for feeds, is_sample in _iterate_feeds(signature, captured, samples):
            leaves = [torch.from_numpy(feeds[name]) for name in captured.input_names]
            tensors = call_module(source.module, captured, leaves)
            if len(tensors) != len(model.output_names):
                raise BuildFailedError(
                    f"{source.name} returns {len(tensors)} tensors, its ONNX form {len(model.output_names)}"
                )
            wanted = {name: value.numpy() for name, value in zip(model.output_names, tensors, strict=True)}
            meter.add(wanted, model.run(feeds))
            for name, value in wanted.items():
                peaks[name] = max(peaks.get(name, 0.0), _peak(value))
            count += is_sample
    fidelity = meter.result()
    _require_tolerance(source.name, fidelity, peaks, tolerance)
    return {
        "on": "example inputs" if samples is None else "samples",
        "samples": fidelity.samples if samples is None else count,
        "inferences": fidelity.samples,
        "tolerance": tolerance,
        "worst_output": fidelity.worst_output,
        "outputs": {
            output.name: {
                "max_abs_error": output.max_abs_error,
                "relative_l2_error": output.relative_l2_error,
                "cosine": output.cosine_mean,
                "equal_share": output.equal_share,
            }
            for output in fidelity.outputs
        },
    }


def widen_tolerance(path: Path, tolerance: float) -> float:
    """Returns the tolerance of a model: a larger one where it rounds activations by scales of its own."""
    import onnx

    rounds = find_own_scales(onnx.load(path, load_external_data=False)) is not None
    return tolerance * _ROUNDING_FACTOR if rounds else tolerance


def _iterate_feeds(
    signature: Signature, captured: Captured, samples: SampleRef | None
) -> Iterator[tuple[dict[str, Array], bool]]:
    """Yields inputs and whether they are a sample; the example inputs come first, in several batches if they may."""
    examples = {name: leaf.numpy() for name, leaf in zip(captured.input_names, captured.leaves, strict=True)}
    yield examples, False
    if captured.batch_is_dynamic:
        flags = dict(zip(captured.input_names, captured.batched, strict=True))
        rows = next(len(examples[name]) for name, flag in flags.items() if flag)
        for picked in (*([row] for row in range(min(rows, SAMPLE_LIMIT))), [row % rows for row in range(_ODD_BATCH)]):
            yield _pick(examples, flags, picked), False
    if samples is not None:
        opened = open_samples(samples, signature)
        for feeds in opened.feeds(limit=SAMPLE_LIMIT):
            yield feeds, True


def _pick(examples: Mapping[str, Array], flags: Mapping[str, bool], rows: list[int]) -> dict[str, Array]:
    return {
        name: np.ascontiguousarray(value[rows]) if flags[name] else np.array(value) for name, value in examples.items()
    }


def _peak(value: Array) -> float:
    if value.dtype.kind != "f" or not value.size:
        return 0.0
    return float(np.abs(np.where(np.isfinite(value), value, 0.0)).max())


def _require_tolerance(name: str, fidelity: Fidelity, peaks: Mapping[str, float], tolerance: float) -> None:
    faults = {
        output.name: fault
        for output in fidelity.outputs
        if (fault := _find_fault(output, peaks[output.name], tolerance)) is not None
    }
    if not faults:
        return
    worst = fidelity.worst_output if fidelity.worst_output in faults else next(iter(faults))
    raise BuildFailedError(
        f"the ONNX form of {name} does not follow it: output {worst} {faults[worst]}, "
        f"over {fidelity.samples} inferences",
        hint="look for operations that depend on Python values or on randomness; or raise the tolerance",
    )


def _find_fault(output: OutputFidelity, peak: float, tolerance: float) -> str | None:
    if output.shape_fault is not None:
        return f"has another shape: {output.shape_fault}"
    if output.nonfinite:
        return f"has {output.nonfinite} NaN or infinite elements that the source has not"
    if not output.is_float:
        share = output.equal_share if output.equal_share is not None else 0.0
        if share >= _LEAST_EQUAL_SHARE:
            return None
        return f"equals the source in {share:.1%} of its elements (at least {_LEAST_EQUAL_SHARE:.0%} is expected)"
    error, peak_error = output.relative_l2_error, output.max_abs_error
    if peak_error is not None and peak_error <= _NEGLIGIBLE_ERROR:
        return None
    if error is None or peak_error is None or error > tolerance:
        found = "undefined" if error is None else f"{error:.2e}"
        return f"has a relative L2 error of {found} (limit {tolerance:g}), largest difference {peak_error:.3g}"
    if peak_error > _PEAK_TOLERANCE_FACTOR * tolerance * peak:
        return (
            f"differs by {peak_error:.3g} in one element, its largest value is {peak:.3g} "
            f"(limit {_PEAK_TOLERANCE_FACTOR * tolerance:.0%} of it)"
        )
    return None
