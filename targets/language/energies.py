"""What linear layers read, as products of channels with each other: what GPTQ's method weighs errors by."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BuildFailedError
from modelwright.targets.graphs.rewrite import keep_needed, prune_graph
from modelwright.targets.graphs.run import session_options
from modelwright.targets.language.contract import Tokens
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.options import RunSettings
from modelwright.targets.quantization.rounding import split_columns
from modelwright.targets.readiness import require_import

PAST = "past_key_values."
"""How inputs that hold keys and values begin."""
TOGETHER = 2048
"""Channels whose errors are made up for together; more of them would cost more than they gain."""
Energy = Sequence[npt.NDArray[np.float32]]
"""float32 [1, channels, channels] for each block of channels: sums over tokens of one channel times another."""


def measure_energies(model: PortableModel, reads: Mapping[str, int], tokens: Tokens, threads: int) -> dict[str, Energy]:
    """Runs the model on texts and sums up what layers read.

    Args:
        model: The portable graph.
        reads: Names of values that layers read -> how many channels they have.
        tokens: int64 [rows, length]: each row a text of its own.
        threads: To compute with.
    """
    parts = {name: split_columns(channels, TOGETHER) for name, channels in reads.items()}
    sums = {
        name: [np.zeros((1, p.stop - p.start, p.stop - p.start), np.float32) for p in parts[name]] for name in reads
    }
    for found in read_values(model, list(reads), tokens, threads):
        for name, values in zip(reads, found, strict=True):
            flat = values.reshape(-1, values.shape[-1])
            for part, total in zip(parts[name], sums[name], strict=True):
                total += flat[:, part].T @ flat[:, part]
    return dict(sums)


def read_values(
    model: PortableModel, names: Sequence[str], tokens: Tokens, threads: int
) -> Iterator[Sequence[npt.NDArray[np.float32]]]:
    """Runs the model on one text after the other, and yields what some of its values are.

    Args:
        model: The portable graph.
        names: Of the values.
        tokens: int64 [rows, length]: each row a text of its own.
        threads: To compute with.
    """
    session = open_part(model.proto, model.folder, names, threads)
    for row in tokens:
        yield session.run(list(names), feed_tokens(session, row[None], None))


def feed_tokens(session: Any, tokens: Tokens, past: Mapping[str, npt.NDArray[np.float32]] | None) -> dict[str, Any]:
    """Returns what a session of `open_part` reads for tokens that all count.

    Args:
        session: Opened.
        tokens: int64 [rows, length].
        past: What it keeps of tokens before, by the names of its inputs; None where these are the first.
    """
    inputs = session.get_inputs()
    if past is None:
        past = {
            value.name: np.zeros((len(tokens), value.shape[1], 0, value.shape[3]), np.float32)
            for value in inputs
            if value.name.startswith(PAST)
        }
    before = next((value.shape[2] for value in past.values()), 0)
    total = before + tokens.shape[1]
    feeds: dict[str, Any] = {
        "input_ids": tokens,
        "attention_mask": np.ones((len(tokens), total), np.int64),
        "position_ids": np.broadcast_to(np.arange(before, total), tokens.shape),
        "num_logits": np.array([tokens.shape[1]]),
        **past,
    }
    return {value.name: feeds[value.name] for value in inputs if value.name in feeds}


def open_part(graph: Any, folder: Path, names: Sequence[str], threads: int) -> Any:
    """Opens the part of a portable graph that makes some values; its weights stay where they are.

    Args:
        graph: A model of onnx; it stays as it is.
        folder: Where its weights lie.
        names: Of the values.
        threads: To compute with.

    Raises:
        BuildFailedError: ONNX Runtime cannot load it.
    """
    onnx, ort = require_import("onnx", "onnx"), require_import("onnxruntime", "ort")
    proto = onnx.ModelProto.FromString(graph.SerializeToString())
    del proto.graph.output[:]
    proto.graph.output.extend(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None) for name in names)
    nodes, read = keep_needed(proto.graph.node, names)
    del proto.graph.node[:]
    proto.graph.node.extend(nodes)
    fed = [value for value in proto.graph.input if value.name in read]
    del proto.graph.input[:]
    proto.graph.input.extend(fed)
    prune_graph(proto)
    options = session_options(RunSettings(threads=threads))
    # Between two texts it is numpy's turn: threads that wait for work would take its cores.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.model_external_initializers_file_folder_path", str(folder))
    try:
        return ort.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for every status code
        raise BuildFailedError("ONNX Runtime cannot load the exported model", detail=str(error)) from error
