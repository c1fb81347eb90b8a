"""Runs a converted `.tflite` in ONNX terms: names, dtypes, layouts and batch sizes of the model that it came from.

This is what runs on the device: it needs numpy and one of the TFLite runtimes, nothing else of the project.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class TfliteRunner:
    """A loaded `.tflite` file. Not thread-safe.

    Attributes:
        interpreter: The runtime's interpreter, for inspection.
        runtime: The package that runs it: `ai_edge_litert` or `tflite_runtime`.
    """

    def __init__(
        self,
        model_file: Path,
        binding: Mapping[str, Any],
        *,
        threads: int = 1,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        """Loads the file with the runtime's default delegate (XNNPACK).

        Args:
            model_file: The `.tflite` file.
            binding: What the converter's result says about it under `binding`.
            threads: Number of threads of one inference.
            arguments: Further ones of the interpreter.
        """
        make_interpreter, self.runtime = load_runtime()
        self.interpreter = make_interpreter(model_path=str(model_file), num_threads=threads, **(arguments or {}))
        self._resets = bool(binding["reset_variables"])
        self._resizes = bool(binding["dynamic_batch"])
        self._splits_batch = bool(binding["splits_batch"])
        self._inputs: list[dict[str, Any]] = list(binding["inputs"])
        self._outputs: list[dict[str, Any]] = list(binding["outputs"])
        self._input_details = self.interpreter.get_input_details()
        self._output_details = self.interpreter.get_output_details()
        self._shapes: list[tuple[int, ...]] | None = None
        self._set_shapes([tuple(entry["shape"]) for entry in self._inputs])

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one inference.

        Args:
            feeds: Every input by its ONNX name, in ONNX layout, batch dimension included.

        Returns:
            Every output by its ONNX name, in ONNX layout and dtype; the arrays are the caller's.

        Raises:
            ValueError: An input is absent, or has a shape that the file cannot take.
        """
        batch = self._find_batch(feeds)
        if batch > 1 and not self._resizes:
            return self._run_one_by_one(feeds, batch)
        self._set_shapes(self._read_shapes(feeds))
        for index, value in self._convert_inputs(feeds):
            self.interpreter.set_tensor(index, value)
        self._invoke()
        return {entry["name"]: self._read_output(entry, batch) for entry in self._outputs}

    def bind(self, feeds: Mapping[str, Array]) -> Callable[[], None]:
        """Returns the shortest call that hands over these inputs, runs, and reads the outputs."""
        batch = self._find_batch(feeds)
        if batch > 1 and not self._resizes:
            parts = [_take(feeds, row) for row in range(batch)]
            calls = [self.bind(part) for part in parts]

            def run_all() -> None:
                for call in calls:
                    call()

            return run_all
        shapes = self._read_shapes(feeds)
        self._set_shapes(shapes)
        inputs = self._convert_inputs(feeds)
        outputs = [self._output_details[entry["position"]]["index"] for entry in self._outputs]
        set_tensor, get_tensor, invoke = self.interpreter.set_tensor, self.interpreter.get_tensor, self._invoke

        def run_once() -> None:
            self._set_shapes(shapes)  # others may have run since
            for index, value in inputs:
                set_tensor(index, value)
            invoke()
            for index in outputs:
                get_tensor(index)

        return run_once

    def name_inputs(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Returns inputs as the file takes them, by the names of its tensors; the first of a batch that it splits."""
        batch = self._find_batch(feeds)
        if batch > 1 and not self._resizes:
            return self.name_inputs(_take(feeds, 0))
        names = {detail["index"]: str(detail["name"]) for detail in self._input_details}
        return {names[index]: value for index, value in self._convert_inputs(feeds)}

    def list_operators(self) -> list[tuple[int, str, Any, str]]:
        """Returns place, type, dtype of the first input, and name of the first output of each operator of the file."""
        details = self.interpreter.get_tensor_details()
        dtypes = {detail["index"]: detail["dtype"] for detail in details}
        names = {detail["index"]: str(detail["name"]) for detail in details}
        listed = self.interpreter._get_ops_details()  # noqa: SLF001 - the runtime has no public name for it
        return [
            (
                one["index"],
                one["op_name"],
                dtypes.get(one["inputs"][0]) if len(one["inputs"]) else None,
                names.get(one["outputs"][0], "") if len(one["outputs"]) else "",
            )
            for one in listed
        ]

    def _invoke(self) -> None:
        if self._resets:
            self.interpreter.reset_all_variables()
        self.interpreter.invoke()

    def _find_batch(self, feeds: Mapping[str, Array]) -> int:
        batches = set()
        for entry in self._inputs:
            if entry["name"] not in feeds:
                raise ValueError(f"input {entry['name']} is not given")
            shape, expected = np.shape(feeds[entry["name"]]), tuple(entry["shape"])
            may_batch = self._resizes or self._splits_batch
            free = {*entry.get("varies", ()), *((0,) if may_batch else ())}
            fits = len(shape) == len(expected) and all(
                size == known or (axis in free and size > 0)
                for axis, (size, known) in enumerate(zip(shape, expected, strict=True))
            )
            if not fits:
                wanted = [
                    "batch" if axis == 0 else "any" if axis in free else size for axis, size in enumerate(expected)
                ]
                wanted = wanted if may_batch else list(expected)
                raise ValueError(f"input {entry['name']} has shape {list(shape)}; the file takes {wanted}")
            batches.add(shape[0] if may_batch else 1)
        if len(batches) != 1:
            raise ValueError(f"the inputs have different batch sizes: {sorted(batches)}")
        return int(batches.pop())

    def _read_shapes(self, feeds: Mapping[str, Array]) -> list[tuple[int, ...]]:
        return [np.shape(feeds[entry["name"]]) for entry in self._inputs]

    def _set_shapes(self, shapes: list[tuple[int, ...]]) -> None:
        if shapes == self._shapes:
            return
        self._shapes = None  # until the allocation went well
        if self._resizes:
            for entry, shape in zip(self._inputs, shapes, strict=True):
                index = self._input_details[entry["position"]]["index"]
                self.interpreter.resize_tensor_input(index, list(shape))
        self.interpreter.allocate_tensors()
        self._shapes = shapes

    def _convert_inputs(self, feeds: Mapping[str, Array]) -> list[tuple[int, Array]]:
        converted = []
        for entry in self._inputs:
            detail = self._input_details[entry["position"]]
            converted.append((detail["index"], fit_input(feeds[entry["name"]], detail)))
        return converted

    def _read_output(self, entry: Mapping[str, Any], batch: int) -> Array:
        value: Array = self.interpreter.get_tensor(self._output_details[entry["position"]]["index"])
        if entry["dtype"] is not None and value.dtype != entry["dtype"]:
            value = value.astype(entry["dtype"])
        if entry.get("order") is not None:
            return value.transpose(entry["order"])
        if entry["shape"] is None:
            return value
        scales = entry["scales_with_batch"] or [False] * len(entry["shape"])
        return value.reshape([d * batch if s else d for d, s in zip(entry["shape"], scales, strict=True)])

    def _run_one_by_one(self, feeds: Mapping[str, Array], batch: int) -> dict[str, Array]:
        results = [self.run(_take(feeds, row)) for row in range(batch)]
        return {name: np.concatenate([result[name] for result in results]) for name in results[0]}


def fit_input(value: Array, detail: Mapping[str, Any]) -> Array:
    """Returns a value as the file's tensor takes it: in its dtype, and a scalar in its shape, which is mostly [1]."""
    # Not `ascontiguousarray`: it makes a vector of a scalar.
    fitted = np.asarray(value, dtype=detail["dtype"], order="C")
    return fitted.reshape(detail["shape"]) if fitted.ndim == 0 else fitted


def _take(feeds: Mapping[str, Array], row: int) -> dict[str, Array]:
    return {name: value[row : row + 1] for name, value in feeds.items()}


def load_runtime() -> tuple[Callable[..., Any], str]:
    """Returns the interpreter's class and the package that it comes from.

    Raises:
        ModuleNotFoundError: None of the runtimes is installed.
    """
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("ai_edge_litert"):
            raise
    else:
        return Interpreter, "ai_edge_litert"
    try:
        from tflite_runtime.interpreter import Interpreter as OldInterpreter
    except ModuleNotFoundError as error:
        if not (error.name or "").startswith("tflite_runtime"):
            raise
    else:
        return OldInterpreter, "tflite_runtime"
    raise ModuleNotFoundError("no TFLite runtime is installed: pip install ai-edge-litert", name="ai_edge_litert")
