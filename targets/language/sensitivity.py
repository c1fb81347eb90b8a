"""What few bits in one group of matrices do to what the whole model predicts."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from modelwright.core.files import read_json, write_json
from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import Tokens
from modelwright.targets.language.energies import feed_tokens, open_part
from modelwright.targets.language.perplexity import measure_divergence
from modelwright.targets.language.portable import Floats, LinearLayer, PortableModel
from modelwright.targets.readiness import require_import

_TEXTS = 2
"""Divergences of so many texts of 256 tokens rank groups well enough."""
_LOOKED_UP = ".looked_up"


def measure_harm(
    grids: CompensatedGrids,
    groups: Mapping[str, Sequence[LinearLayer]],
    texts: Tokens,
    threads: int,
    progress: Callable[[str], None],
) -> dict[str, float]:
    """Returns the value that layers read -> the divergence from the float model where they alone are rounded, in nats.

    How much of a layer's output is noise says little of that: the first and the last layers, and those whose output is
    carried by a few large channels, harm far more than their noise tells.

    Args:
        grids: The matrices in few bits; what is measured is kept beside their integers.
        groups: The value that layers read -> those layers.
        texts: int64 [rows, length], of which the last ones are taken: those that the model wrote itself.
        threads: To compute with.
        progress: Takes lines.
    """
    taken = texts[-_TEXTS:]
    path = grids.folder / f"harm-{hashlib.sha256(taken.tobytes()).hexdigest()[:16]}.json"
    if path.is_file():
        kept = read_json(path, "what few bits do")
        if kept.keys() == groups.keys():
            return {reads: float(value) for reads, value in kept.items()}
    model = grids.model
    session = open_part(_open_to_other_weights(model, groups), model.folder, ["logits"], threads)
    feeds = [feed_tokens(session, row[None], None) for row in taken]
    expected = [session.run(["logits"], feed)[0][0] for feed in feeds]
    harm: dict[str, float] = {}
    for number, (reads, layers) in enumerate(groups.items(), 1):
        if number % 10 == 1:
            progress(f"group {number} of {len(groups)}: what few bits do")
        rounded = {layer.weight: _restore(grids, layer) for layer in layers}
        found = (session.run(["logits"], {**feed, **rounded})[0][0] for feed in feeds)  # one text's at a time
        harm[reads] = float(np.mean([measure_divergence(*pair) for pair in zip(expected, found, strict=True)]))
    write_json(path, harm)
    return harm


def _restore(grids: CompensatedGrids, layer: LinearLayer) -> Floats:
    matrix = grids.round_layer(layer).restore()
    return np.ascontiguousarray(matrix.T) if layer.is_turned else matrix


def _open_to_other_weights(model: PortableModel, groups: Mapping[str, Sequence[LinearLayer]]) -> Any:
    """Returns the graph with matrices as inputs that need not be given; tables that they share stay constants."""
    onnx = require_import("onnx", "onnx")
    proto = onnx.ModelProto.FromString(model.proto.SerializeToString())
    weights = {layer.weight for layers in groups.values() for layer in layers}
    for tensor in [each for each in proto.graph.initializer if each.name in weights]:
        proto.graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims))
        if tensor.name in model.tables:
            table = onnx.TensorProto.FromString(tensor.SerializeToString())
            table.name += _LOOKED_UP
            proto.graph.initializer.append(table)
    for node in proto.graph.node:
        if node.op_type == "Gather" and node.input[0] in weights:
            node.input[0] += _LOOKED_UP
    return proto
