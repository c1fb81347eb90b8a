"""ONNX Runtime as the executor that says what the FP32 model answers.

It is used here as the reference for exports and artifacts; the `ort-*` targets have their own sessions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.samples import Array, SampleSet, array_file_name

_ROWS = "rows.npz"
_NAMES = "names.json"


class ReferenceModel:
    """An ONNX model in ONNX Runtime on the CPU, with the graph as it is but for redundant nodes.

    Args:
        path: The ONNX file.
        threads: Of the session.

    Raises:
        BadInputError: ONNX Runtime cannot load it; its words are in the detail.
        ToolchainMissingError: ONNX Runtime is not installed.
    """

    def __init__(self, path: Path, *, threads: int = 1) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise ToolchainMissingError(
                "onnxruntime is needed to run the FP32 model", hint="pip install 'modelwright[onnx]'"
            ) from error
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = threads
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.log_severity_level = 4
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime raises a dozen classes of its own
            raise BadInputError(
                f"ONNX Runtime cannot load {path.name}: {_first_line(error)}",
                hint="check that the model runs in ONNX Runtime; an operator it lacks cannot be compared with",
                detail=str(error),
            ) from error
        self.inputs = self._session.get_inputs()
        self.outputs = self._session.get_outputs()
        self.output_names = [output.name for output in self.outputs]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns every output by name.

        Raises:
            BadInputError: The model fails on these inputs.
        """
        try:
            return dict(zip(self.output_names, self._session.run(None, dict(feeds)), strict=True))
        except Exception as error:
            shapes = ", ".join(f"{name} {list(value.shape)}" for name, value in feeds.items())
            raise BadInputError(
                f"the FP32 model fails on the samples ({shapes}): {_first_line(error)}",
                hint="check the shapes and the values of the samples",
                detail=str(error),
            ) from error


def write_reference(model_path: Path, samples: SampleSet, directory: Path) -> None:
    """Writes FP32's outputs on every sample: one `.npy` an output, or one file a sample where shapes vary."""
    directory.mkdir(parents=True, exist_ok=True)
    model = ReferenceModel(model_path)
    maps: dict[str, Any] = {}
    varying = False
    (directory / _NAMES).write_text(json.dumps(model.output_names))
    for index, feeds in enumerate(samples.feeds()):
        outputs = {name: np.asarray(value) for name, value in model.run(feeds).items()}
        if index == 0:
            for name, value in outputs.items():
                maps[name] = np.lib.format.open_memmap(
                    directory / array_file_name(name), mode="w+", dtype=value.dtype, shape=(samples.count, *value.shape)
                )
        varying = varying or any(value.shape != maps[name].shape[1:] for name, value in outputs.items())
        if varying:
            break
        for name, value in outputs.items():
            maps[name][index] = value
    if varying:
        for name in maps:
            (directory / array_file_name(name)).unlink()
        for index, feeds in enumerate(samples.feeds()):
            # Named by position, because an output's name may be anything.
            np.savez(directory / f"{index}.{_ROWS}", *model.run(feeds).values())


class ReferenceOutputs(Sequence[Mapping[str, Array]]):
    """FP32's outputs by sample, read from the disk as they are asked for."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names: list[str] = json.loads((directory / _NAMES).read_text())
        paths = {name: directory / array_file_name(name) for name in self._names}
        self._maps = {name: np.load(path, mmap_mode="r") for name, path in paths.items() if path.exists()}
        rows = len(list(directory.glob(f"*.{_ROWS}")))
        self._count = rows or len(next(iter(self._maps.values()), ()))

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Array]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Array]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Array] | Sequence[Mapping[str, Array]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        if not 0 <= index < self._count:
            raise IndexError(index)
        if self._maps:
            return {name: np.array(values[index]) for name, values in self._maps.items()}
        with np.load(self._directory / f"{index}.{_ROWS}", allow_pickle=False) as row:
            return {name: row[f"arr_{position}"] for position, name in enumerate(self._names)}


def read_reference(directory: Path) -> Sequence[Mapping[str, Array]]:
    """Returns what `write_reference` wrote, one mapping a sample."""
    return ReferenceOutputs(directory)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
