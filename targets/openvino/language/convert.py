"""From the portable graph to a stateful OpenVINO model, whose cache stays inside from call to call.

The model has the inputs that openvino-genai asks for, `beam_idx` among them, and one more: how many of the last
positions get logits. Where nobody sets that, it is one. genai's LLMPipeline (2026.4) so generates with its usual paged
attention; its `ATTENTION_BACKEND="SDPA"` refuses a fifth input.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BuildFailedError
from modelwright.core.records.language import GRAPH_FILE
from modelwright.targets.openvino.convert import name_obstacle
from modelwright.targets.openvino.language.attention import AttentionRules
from modelwright.targets.readiness import require_import

PAST, PRESENT = "past_key_values.", "present."
BEAMS, COUNT = "beam_idx", "num_logits"
_HINT = "the ort-* targets run this model"


def convert_language(openvino: Any, folder: Path) -> Any:
    """Returns the stateful model of an exported one.

    Raises:
        BuildFailedError: OpenVINO cannot convert it; names the operator and node.
    """
    opset = require_import("openvino.opset15", "openvino")
    frontend = require_import("openvino.frontend.onnx", "openvino")
    path = folder / GRAPH_FILE
    rules = AttentionRules(opset, frontend.ConversionExtension)
    try:
        model = openvino.convert_model(str(path), extension=rules.extensions)
        _default_count(opset, model)
        _keep_cache(opset, model)
    except Exception as error:  # OpenVINO raises classes of its own that have no common base
        raise BuildFailedError(
            f"OpenVINO cannot convert {path.name}: {name_obstacle(str(error), path)}", hint=_HINT, detail=str(error)
        ) from error
    return model


def _default_count(opset: Any, model: Any) -> None:
    """Makes the number of positions with logits an input that may be left out: an empty one means 1."""
    port = model.input(COUNT)
    readers = port.get_target_inputs()
    parameter = port.get_node()
    parameter.set_partial_shape(type(port.get_partial_shape())([-1]))
    given = opset.concat([port, opset.constant(np.ones(1, np.int64))], 0)
    count = opset.reduce_max(given, np.array([0], np.int64), keep_dims=True)
    for reader in readers:
        reader.replace_source_output(count.output(0))
    model.validate_nodes_and_infer_types()


def _keep_cache(opset: Any, model: Any) -> None:
    """Turns the cache's inputs and outputs into state, which beams may reorder and which is empty at first."""
    beams = opset.parameter([-1], np.int32, name=BEAMS)
    beams.output(0).get_tensor().add_names({BEAMS})
    model.add_parameters([beams])
    pairs = {}
    for port in model.inputs:
        name = port.get_any_name()
        if not name.startswith(PAST):
            continue
        pairs[name] = PRESENT + name.removeprefix(PAST)
        readers = port.get_target_inputs()
        ordered = opset.gather(port, beams, np.int64(0))
        for reader in readers:
            reader.replace_source_output(ordered.output(0))
    model.validate_nodes_and_infer_types()
    passes = require_import("openvino.passes", "openvino")
    manager = passes.Manager()
    manager.register_pass(passes.MakeStateful(pairs))
    manager.run_passes(model)
    batch = opset.gather(opset.shape_of(model.input("input_ids"), "i64"), np.array([0], np.int64), np.int64(0))
    for node in model.get_ops():
        if node.get_type_name() == "ReadValue":
            _, heads, _, channels = node.get_output_partial_shape(0)
            rest = np.array([heads.get_length(), 0, channels.get_length()], np.int64)
            empty = opset.broadcast(np.float32(0), opset.concat([batch, opset.constant(rest)], 0))
            node.set_arguments([empty.output(0)])
    model.validate_nodes_and_infer_types()
