"""Prepares a model for quantization: a fit opset, constants and batch norms folded, the graph normalized."""

from __future__ import annotations

from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.doubles import has_double_weights, narrow_inside
from modelwright.core.onnx.facts import find_opset
from modelwright.targets.contract import BuildRequest, RunSettings
from modelwright.targets.graphs.files import find_external_files, load_model, save_model
from modelwright.targets.graphs.rewrite import PER_AXIS_OPSET, normalize_graph, raise_opset
from modelwright.targets.graphs.run import open_file, open_session, session_options
from modelwright.targets.readiness import require_import

EXTERNAL_BYTES = 1_500_000_000


def prepare_model(request: BuildRequest) -> tuple[Any, dict[str, Any]]:
    """Loads the model at a fit opset, with constants and batch norms folded and its graph normalized.

    Returns:
        The model, and what was or could not be done to it, for the recipe; `float64_note` is for the user too.
    """
    request.progress("folding constants and batch norms")
    path, notes = request.model_path, dict[str, Any]()
    external = find_external_files(path)
    graph = load_model(path, weights=False)
    if has_double_weights(graph):
        narrowed = load_model(path)
        narrow_inside(narrowed, [spec.name for spec in request.signature.outputs if spec.dtype == "float64"])
        path, external = request.scratch / "narrowed.onnx", []
        save_model(narrowed, path)
        notes["float64_note"] = "float64 is float32 inside: there are no integer kernels beside wider numbers"
        request.progress(notes["float64_note"])
    if find_opset(graph) < PER_AXIS_OPSET:
        source = load_model(path)
        try:
            converted = raise_opset(source, PER_AXIS_OPSET, lambda m: _verify(request, m))
            path = request.scratch / "raised.onnx"
            save_model(converted, path)
            external = []
        except BuildFailedError as error:
            # ONNX Runtime's own Q/DQ operators work at any opset, so static quantization can go on.
            notes["opset_note"] = f"kept at its opset: {error.message}"
            request.progress(str(notes["opset_note"]))
    folded = request.scratch / "folded.onnx"
    ort = require_import("onnxruntime", "ort")
    options = session_options(RunSettings(threads=1))
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folded)
    if external or path.stat().st_size > EXTERNAL_BYTES:
        # Without it, weights kept apart are left where they were, under a path that no longer holds from here.
        options.add_session_config_entry("session.optimized_model_external_initializers_file_name", "folded.data")
    try:
        ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        open_file(path, RunSettings(), BuildFailedError)  # raises when the model itself is what cannot be loaded
        notes["folding_note"] = f"not folded: {error}"
        folded = path
    model = load_model(folded)
    normalize_graph(model)
    return model, notes


def _verify(request: BuildRequest, converted: Any) -> None:
    """Compares a converted model with the original on real samples where there are any."""
    samples = request.tuning or request.calibration
    if samples is None:
        return
    before = open_file(request.model_path, RunSettings(), BuildFailedError)
    after = open_session(converted, request.scratch)
    for feeds in samples.feeds(2):
        for spec, old, new in zip(
            request.signature.outputs, before.run(None, dict(feeds)), after.run(None, dict(feeds)), strict=True
        ):
            if not np.allclose(old, new, rtol=1e-3, atol=1e-4):
                raise BuildFailedError(f"onnx's version converter changed the numbers of output {spec.name}")
