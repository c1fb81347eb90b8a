"""ONNX Runtime's own quantization by its plain calls: the candidate that a search must not do worse than."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from modelwright.targets.contract import Feeds
from modelwright.targets.graphs.files import load_model, save_model
from modelwright.targets.readiness import require_import


def quantize_as_vendor(model: Any, feeds: Iterator[Feeds] | None, kept: Collection[str], scratch: Path) -> Any:
    """Returns the model as `quantize_static` makes it, or `quantize_dynamic` without samples to calibrate on.

    Its documentation's choice for x86: Q/DQ pairs, uint8 activations, int8 weights; all else as it comes.

    Args:
        model: A normalized float model. Not changed.
        feeds: Samples that calibrate; None for ranges that are taken as it runs.
        kept: Names of nodes that stay in float.
        scratch: For the files between.
    """
    quantization = require_import("onnxruntime.quantization", "ort")
    types, excluded = quantization.QuantType, list(kept)
    with TemporaryDirectory(dir=scratch) as folder, _only_errors():
        source, result = Path(folder) / "float.onnx", Path(folder) / "quantized.onnx"
        save_model(model, source)
        if feeds is None:
            quantization.quantize_dynamic(source, result, weight_type=types.QInt8, nodes_to_exclude=excluded)
        else:
            quantization.quantize_static(
                source,
                result,
                _make_reader(quantization.CalibrationDataReader, feeds),
                quant_format=quantization.QuantFormat.QDQ,
                activation_type=types.QUInt8,
                weight_type=types.QInt8,
                nodes_to_exclude=excluded,
            )
        return load_model(result)


def _make_reader(base: Any, feeds: Iterator[Feeds]) -> Any:
    class Reader(base):  # type: ignore[misc]
        def get_next(self) -> dict[str, Any] | None:
            sample = next(feeds, None)
            return None if sample is None else dict(sample)

    return Reader()


@contextmanager
def _only_errors() -> Iterator[None]:
    """Keeps the vendor's advice, which is logged at every call, off the output of a build."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
