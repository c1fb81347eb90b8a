"""Writes STFT, which TFLite does not have, as one convolution with a window's sines and cosines."""

from __future__ import annotations

import numpy as np
import onnx

from modelwright.core.onnx.facts import read_attribute

from .graph import Array, Graph


def rewrite_spectra(graph: Graph) -> None:
    """Rewrites every STFT of a real signal whose step, window and length are constant."""
    rewritten: list[onnx.NodeProto] = []
    for node in graph.nodes:
        basis = _find_basis(node, graph) if node.op_type == "STFT" else None
        rewritten.extend([node] if basis is None else _convolve(node, basis, graph))
    graph.nodes = rewritten


def _find_basis(node: onnx.NodeProto, graph: Graph) -> Array | None:
    """Returns [2 * bins, 1, length]: what each sample of a frame adds to the real parts, then to the imaginary ones."""
    signal, step, window, length = [*node.input, "", ""][:4]
    shape = graph.shapes.get(signal)
    is_real = shape is not None and (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1))
    if not is_real or step not in graph.constants or any(n and n not in graph.constants for n in (window, length)):
        return None
    weights = graph.constants[window] if window else None
    size = int(graph.constants[length].reshape(())) if length else (0 if weights is None else weights.size)
    if not size or (weights is not None and weights.size != size):
        return None
    bins = size // 2 + 1 if read_attribute(node, "onesided", 1) else size
    # The angle of whole turns is left out before it loses digits.
    turns = np.outer(np.arange(bins), np.arange(size)) % size / size * (2 * np.pi)
    basis = np.concatenate([np.cos(turns), -np.sin(turns)]) * (1.0 if weights is None else weights.reshape(-1))
    return basis[:, None].astype(np.float32)


def _convolve(node: onnx.NodeProto, basis: Array, graph: Graph) -> list[onnx.NodeProto]:
    """Writes [batch, frames, bins, 2] as a convolution over the signal, its channels sorted out afterwards."""
    batch, samples = graph.shapes[node.input[0]][:2]
    step = int(graph.constants[node.input[1]].reshape(()))
    width, size = basis.shape[0], basis.shape[2]
    frames = (samples - size) // step + 1
    stem = node.name or node.output[0]
    names = [graph.new_name(f"{stem}_{part}") for part in ("signal", "product", "parts")]
    into = graph.add_constant(f"{stem}_into", np.array([-1, 1, samples], dtype=np.int64))
    apart = graph.add_constant(f"{stem}_apart", np.array([-1, 2, width // 2, frames], dtype=np.int64))
    weight = graph.add_constant(f"{stem}_basis", basis)
    return [
        graph.make_node("Reshape", [node.input[0], into], names[0], stem=f"{stem}_rows", shape=(batch, 1, samples)),
        graph.make_node("Conv", [names[0], weight], names[1], stem=stem, shape=(batch, width, frames), strides=[step]),
        graph.make_node(
            "Reshape", [names[1], apart], names[2], stem=f"{stem}_split", shape=(batch, 2, width // 2, frames)
        ),
        graph.make_node(
            "Transpose",
            [names[2]],
            node.output[0],
            stem=f"{stem}_turn",
            shape=(batch, frames, width // 2, 2),
            perm=[0, 3, 2, 1],
        ),
    ]
