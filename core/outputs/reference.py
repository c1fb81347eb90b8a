"""The FP32 reference: ONNX Runtime executing the exported model, and its outputs on disk.

Everything here that runs a model belongs in a child process: a damaged file can end the process.
"""

from __future__ import annotations

import importlib
import re
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, overload

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.files import write_json
from modelwright.core.records.codec import Count, Record, encode, read_record
from modelwright.core.samples.archives import array_file_name
from modelwright.core.samples.npy import NpyWriter
from modelwright.core.samples.sample_set import SampleSet
from modelwright.core.system_errors import explain_os_error

Array = npt.NDArray[Any]

INDEX = "reference.json"
INFERENCE_LIMIT_S = 300.0
"""Of one inference of the reference: a `Loop` that never ends would hold up the first of them for ever."""
_SERIAL_DIGITS = 6
_LOG_ERRORS_ONLY = 3

_OPERATOR_PATTERNS = (
    r"implementation for (?P<op>\S+?)\(\d+\) node with name '(?P<node>[^']*)'",
    r"No Op registered for (?P<op>\S+)",
    r"(?P<op>[\w.]*:?\w+)\(-?\d+\) is not a registered function/op",
    r"running (?P<op>\w+) node\. Name:'(?P<node>[^']*)'",
    r"Node \((?P<node>[^)]*)\) Op \((?P<op>\w+)\)",
    r"[Nn]ode:? ?\((?P<node>[^)]*)\)",
)


class _Index(Record):
    """Which outputs of which shape lie in a folder of FP32's outputs; those of varying shape have a folder each."""

    count: Count
    outputs: tuple[str, ...]
    varying: tuple[str, ...]


_CHANGING = ["WeightBiasQuantization"]
"""Of the basic level, what is not exact: a float bias between QuantizeLinear and DequantizeLinear is rounded to the
product of their scales, which cost 4 % of the outputs at weights of 3 and activations of 4 bits."""


class ReferenceModel:
    """An ONNX model in ONNX Runtime, on the CPU, in FP32, with basic graph optimizations only.

    The basic level removes what is redundant and leaves the arithmetic as it is written in the model.

    Args:
        path: The model; external data lies next to it and is mapped.
        threads: Within one operator; 0 for all cores.
        config: Entries of the session's configuration.
        limit_s: Of one inference.

    Raises:
        BadInputError: ONNX Runtime refuses the model; names the operator and node where it says which.
        ToolchainMissingError: onnxruntime is absent or broken.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        threads: int = 0,
        config: Mapping[str, str] | None = None,
        limit_s: float = INFERENCE_LIMIT_S,
    ) -> None:
        self._runtime = runtime = import_runtime()
        self._limit_s = limit_s
        self.path = Path(path)
        options = runtime.SessionOptions()
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_ENABLE_BASIC
        options.intra_op_num_threads = threads
        options.log_severity_level = _LOG_ERRORS_ONLY
        for key, value in (config or {}).items():
            options.add_session_config_entry(key, value)
        try:
            self._session = runtime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=_CHANGING
            )
        except Exception as error:  # ONNX Runtime's errors have no base of their own
            raise self._explain(error, "ONNX Runtime cannot load it") from error
        self.output_names: tuple[str, ...] = tuple(value.name for value in self._session.get_outputs())

    @property
    def output_shapes(self) -> dict[str, list[int | str | None]]:
        """Output name -> shape as ONNX Runtime infers it; None or a name for a dynamic dimension."""
        return {value.name: list(value.shape) for value in self._session.get_outputs()}

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Runs one inference.

        Args:
            feeds: Input name -> array in the signature's dtype and shape.

        Returns:
            Output name -> array, in the model's order.

        Raises:
            BadInputError: The model fails on this input, or does not come to an end; names the node.
        """
        try:
            with self._limited() as (options, ended):
                values = self._session.run(list(self.output_names), dict(feeds), options)
        except Exception as error:
            if ended.is_set():
                raise BadInputError(
                    f"{self.path}: one inference did not end within {self._limit_s:g} s and was stopped",
                    hint="a Loop whose condition never turns false does that: give it a trip count, and try the model "
                    "in ONNX Runtime first",
                ) from error
            shapes = ", ".join(f"{name} {value.dtype} {list(value.shape)}" for name, value in feeds.items())
            raise self._explain(error, f"it fails in ONNX Runtime on the input {shapes}") from error
        broken = [name for name, value in zip(self.output_names, values, strict=True) if not _is_tensor(value)]
        if broken:
            raise BadInputError(f"{self.path}: output {broken[0]} is not a tensor of numbers")
        return dict(zip(self.output_names, values, strict=True))

    @contextmanager
    def _limited(self) -> Iterator[tuple[Any, threading.Event]]:
        """Yields options that end an inference between two nodes when its time is over, and whether that happened."""
        options, ended = self._runtime.RunOptions(), threading.Event()

        def end() -> None:
            ended.set()
            options.terminate = True

        timer = threading.Timer(self._limit_s, end)
        timer.daemon = True
        timer.start()
        try:
            yield options, ended
        finally:
            timer.cancel()

    def close(self) -> None:
        """Frees the session."""
        self._session = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _explain(self, error: Exception, what: str) -> BadInputError:
        text = str(error).strip()
        place = name_operator(text) or _condense(text)
        hint = "export it again with operators and an opset that ONNX Runtime has" if "load" in what else None
        return BadInputError(f"{self.path}: {what}: {place}", hint=hint, detail=text[:2000])


class ReferenceOutputs(Sequence[Mapping[str, Array]]):
    """Outputs by sample, mapped from disk: `outputs[3]["logits"]` is [1, 10], as the model returned it."""

    def __init__(
        self,
        count: int,
        stacked: Mapping[str, Array],
        folders: Mapping[str, Path],
        names: list[str],
        *,
        writable: bool = False,
    ) -> None:
        self._writable = writable
        self._count = count
        self._stacked = stacked
        self._folders = folders
        self._names = names

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Mapping[str, Array]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Mapping[str, Array]]: ...

    def __getitem__(self, index: int | slice) -> Mapping[str, Array] | Sequence[Mapping[str, Array]]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(self._count))]
        position = index + self._count if index < 0 else index
        if not 0 <= position < self._count:
            raise IndexError(f"sample {index} of {self._count}")
        return {name: self._read(name, position) for name in self._names}

    def _read(self, name: str, position: int) -> Array:
        if name in self._stacked:
            return np.asarray(self._stacked[name][position])
        return _map_array(self._folders[name] / _serial_name(position), writable=self._writable)


def write_reference(model_path: Path, samples: SampleSet, directory: Path, *, threads: int = 0) -> None:
    """Writes FP32's outputs on every sample, one inference after the other; for child processes.

    Args:
        model_path: The FP32 model.
        samples: The inputs.
        directory: Folder to write to; made if absent.
        threads: Of ONNX Runtime; 0 for all cores.

    Raises:
        BadInputError: ONNX Runtime refuses the model, or fails on a sample.
        BuildFailedError: No space on the disk.
    """
    with ReferenceModel(model_path, threads=threads) as model:
        write_outputs(map(model.run, samples.feeds()), model.output_names, directory)


def write_outputs(outputs: Iterable[Mapping[str, Array]], names: Sequence[str], directory: Path) -> None:
    """Writes outputs as `read_reference` reads them.

    An output of one shape on all samples becomes `NAME.npy` [samples, ...]; one of varying shape a folder `NAME` with
    a file a sample. `reference.json`, written last, says which.

    Args:
        outputs: One mapping a sample.
        names: Of the outputs.
        directory: Folder to write to; made if absent.

    Raises:
        BuildFailedError: No space on the disk.
    """
    with OutputsWriter(names, directory) as writer:
        for sample in outputs:
            writer.append(sample)


class OutputsWriter:
    """Writes outputs sample by sample, as `write_outputs` does; what is left when it fails has no `reference.json`.

    Args:
        names: Of the outputs.
        directory: Folder to write to; made if absent.

    Raises:
        BuildFailedError: No space on the disk.
    """

    def __init__(self, names: Sequence[str], directory: Path) -> None:
        self._directory = directory
        self._stack = ExitStack()
        self._count = 0
        with explain_os_error(directory):
            directory.mkdir(parents=True, exist_ok=True)
            self._writers = {name: self._stack.enter_context(_OutputWriter(directory, name)) for name in names}

    def append(self, sample: Mapping[str, Array]) -> None:
        """Takes one inference's outputs."""
        with explain_os_error(self._directory):
            for name, value in sample.items():
                self._writers[name].append(np.asarray(value))
        self._count += 1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        varying = tuple(name for name, writer in self._writers.items() if writer.is_varying)
        with explain_os_error(self._directory):
            self._stack.close()
            if kind is None:
                index = _Index(count=self._count, outputs=tuple(self._writers), varying=varying)
                write_json(self._directory / INDEX, encode(index))


def read_reference(directory: Path, *, writable: bool = False) -> ReferenceOutputs:
    """Opens what `write_reference` wrote; the arrays stay on disk.

    Args:
        directory: That was written to.
        writable: Whether the arrays may be changed; what is written stays in memory, and the files as they are.

    Raises:
        BadInputError: The folder is missing or incomplete.
    """
    index = read_record(_Index, directory / INDEX, what="an index of FP32 outputs")
    folders = {name: _folder_of(directory, name) for name in index.varying}
    stacked = {
        name: _map_array(directory / array_file_name(name), writable=writable)
        for name in index.outputs
        if name not in index.varying and index.count
    }
    short = [name for name, array in stacked.items() if len(array) != index.count]
    if short:
        raise BadInputError(f"{directory} is damaged: {short[0]} does not hold {index.count} samples")
    return ReferenceOutputs(index.count, stacked, folders, list(index.outputs), writable=writable)


def name_operator(text: str) -> str | None:
    """Returns which operator and node a message of ONNX Runtime blames: `operator com.example:Sorcery, node spell`."""
    for pattern in _OPERATOR_PATTERNS:
        match = re.search(pattern, text)
        if match:
            found = match.groupdict()
            parts = [f"{word} {found[key]}" for word, key in (("operator", "op"), ("node", "node")) if found.get(key)]
            if parts:
                return ", ".join(parts)
    return None


def _condense(text: str) -> str:
    """Returns the sentence of ONNX Runtime's message without its error numbers and source locations."""
    limit = re.search(r"Opset (\d+) is under development.*till opset (\d+)", text, re.DOTALL)
    if limit:
        return f"it has opset {limit[1]}, this version knows opsets up to {limit[2]}"
    text = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"^Load model from .*? failed:\s*", "", text)
    text = re.sub(r"^/\S+?:\d+ .*?\) ", "", text)
    return " ".join(text.split())[:300]


class _OutputWriter:
    """Writes one output: stacked as long as its shape stays the same, in a file a sample from then on."""

    def __init__(self, directory: Path, name: str) -> None:
        self._path = directory / array_file_name(name)
        self._folder = _folder_of(directory, name)
        self._writer: NpyWriter | None = None
        self._count = 0
        self.is_varying = False

    def append(self, value: Array) -> None:
        if self._writer is None and not self.is_varying:
            self._writer = NpyWriter(self._path, value.dtype, value.shape)
        if self._writer is not None and (value.shape, value.dtype) != (self._writer.row_shape, self._writer.dtype):
            self._unstack()
        if self._writer is not None:
            self._writer.append(value)
        else:
            np.save(self._folder / _serial_name(self._count), value)
        self._count += 1

    def _unstack(self) -> None:
        """Splits what was stacked so far."""
        assert self._writer is not None
        self._writer.close()
        self._writer = None
        self.is_varying = True
        self._folder.mkdir(exist_ok=True)
        for position, value in enumerate(_map_array(self._path)):
            np.save(self._folder / _serial_name(position), value)
        self._path.unlink()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._writer.close()


def _folder_of(directory: Path, name: str) -> Path:
    return directory / array_file_name(name).removesuffix(".npy")


def _serial_name(position: int) -> str:
    return f"{position:0{_SERIAL_DIGITS}d}.npy"


def _map_array(path: Path, *, writable: bool = False) -> Array:
    try:
        array = np.load(path, mmap_mode="c" if writable else "r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise BadInputError(f"{path} cannot be read: {error}", hint="compute the FP32 outputs again") from error
    return np.asarray(array)


def _is_tensor(value: Any) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in "fiubV"


def import_runtime() -> Any:
    """Imports ONNX Runtime.

    Raises:
        ToolchainMissingError: It is absent or broken.
    """
    try:
        return importlib.import_module("onnxruntime")
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            "Python package onnxruntime is not installed; it runs the FP32 reference",
            hint="pip install 'onnxruntime>=1.22'",
        ) from error
    except Exception as error:  # a vendor's import can raise anything
        raise ToolchainMissingError(
            "onnxruntime is installed but does not import",
            hint="reinstall it: pip install --force-reinstall onnxruntime",
            detail=str(error),
        ) from error
