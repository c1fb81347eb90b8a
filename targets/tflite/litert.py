"""LiteRT's C library by ctypes, as far as profiling operators needs it: the Python package has no call for that.

What the vendor's `litert/c/*.h` of 2.3.0 declare. A model that is compiled here runs on the same XNNPACK delegate as in
the interpreter, which is what is timed.
"""

from __future__ import annotations

import ctypes
import importlib.util
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from modelwright.core.errors import MeasurementInvalidError

Array = npt.NDArray[Any]
_CPU = 1
"""Of `LiteRtHwAccelerators`."""
_WRITE = 1
"""Of `LiteRtTensorBufferLockMode`."""
_TYPE_WORDS = 64
"""Of `LiteRtRankedTensorType`, generously."""
_MAX_RANK = 8
_LAYOUT_WORDS = 1 + 2 * _MAX_RANK
"""Of `LiteRtLayout`: the rank, the sizes and the strides."""
_RANK_MASK = 0x7F
"""The rank shares its word with a flag."""
_Handle = ctypes.c_void_p
_FREE = ctypes.CFUNCTYPE(None, _Handle)


class _MemoryUsage(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in ("total", "in_use", "private")]


class _Event(ctypes.Structure):
    """`ProfiledEventData`."""

    _fields_ = [
        ("tag", ctypes.c_char_p),
        ("event_type", ctypes.c_int),
        ("start_us", ctypes.c_uint64),
        ("elapsed_us", ctypes.c_uint64),
        ("before", _MemoryUsage),
        ("after", _MemoryUsage),
        ("operator", ctypes.c_uint64),
        ("subgraph", ctypes.c_uint64),
        ("source", ctypes.c_int),
    ]


@dataclass(frozen=True, kw_only=True)
class Event:
    """What took a while, as LiteRT's profiler tells.

    Attributes:
        tag: What it was: an operator of the file, or of XNNPACK with its layout and types.
        event_type: Of `LiteRtProfilerEventType`, a bit.
        operator: Its place in the file or in the delegate's plan.
        elapsed_us: How long.
    """

    tag: str
    event_type: int
    operator: int
    elapsed_us: int


class LitertModel:
    """A model that LiteRT compiled with its profiler on. Not thread-safe.

    Args:
        data: Of the `.tflite` file.
        threads: Of one inference.

    Raises:
        MeasurementInvalidError: The library is not there, or refuses the model.
    """

    def __init__(self, data: bytes, threads: int) -> None:
        self._library = load_library()
        self._kept: list[Any] = [ctypes.create_string_buffer(data, len(data))]
        self._close: list[Callable[[], object]] = []
        self._environment = self._make("LiteRtCreateEnvironment", 0, None, destroy="LiteRtDestroyEnvironment")
        self._model = self._make(
            "LiteRtCreateModelFromBuffer",
            self._environment,
            self._kept[0],
            ctypes.c_size_t(len(data)),
            destroy="LiteRtDestroyModel",
        )
        self._compiled = self._make(
            "LiteRtCreateCompiledModel",
            self._environment,
            self._model,
            self._make_options(threads),
            destroy="LiteRtDestroyCompiledModel",
        )
        self._signature = self._make("LiteRtGetModelSignature", self._model, ctypes.c_size_t(0))
        self._profiler = self._make("LiteRtCompiledModelGetProfiler", self._compiled)
        self._buffers: dict[str, list[Any]] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for close in reversed(self._close):
            close()

    def set_inputs(self, values: Mapping[str, Array]) -> None:
        """Makes the buffers of inputs and outputs, and fills the inputs.

        Args:
            values: Name of the file's tensor -> its value, in the tensor's type.
        """
        index = ctypes.c_size_t
        tensors = self._list_tensors("Input")
        shapes = [values[self._read_name(tensor)].shape for tensor in tensors]
        for number, (tensor, shape) in enumerate(zip(tensors, shapes, strict=True)):
            dims = (ctypes.c_int * len(shape))(*shape)
            if tuple(shape) != self._read_shape(tensor):
                self._call(
                    "LiteRtCompiledModelResizeInputTensor", self._compiled, index(0), index(number), dims,
                    index(len(shape)),
                )  # fmt: skip
        # A buffer of the file's shape would silently have the model resized back to it, or be too small.
        self._buffers = {
            "Input": self._make_buffers("Input", shapes),
            "Output": self._make_buffers("Output", self._allocate_outputs()),
        }
        for tensor, buffer in zip(tensors, self._buffers["Input"], strict=True):
            value = np.ascontiguousarray(values[self._read_name(tensor)])
            address = _Handle()
            self._call("LiteRtLockTensorBuffer", buffer, ctypes.byref(address), _WRITE)
            ctypes.memmove(address, value.ctypes.data, value.nbytes)
            self._call("LiteRtUnlockTensorBuffer", buffer)

    def run(self) -> None:
        """Runs one inference under the profiler."""
        arrays = {kind: (_Handle * len(own))(*own) for kind, own in self._buffers.items()}
        counts = {kind: ctypes.c_size_t(len(own)) for kind, own in self._buffers.items()}
        self._call("LiteRtResetProfiler", self._profiler)
        self._call("LiteRtStartProfiler", self._profiler)
        self._call(
            "LiteRtRunCompiledModel", self._compiled, ctypes.c_size_t(0), counts["Input"], arrays["Input"],
            counts["Output"], arrays["Output"],
        )  # fmt: skip
        self._call("LiteRtStopProfiler", self._profiler)

    def read_events(self) -> list[Event]:
        """Returns what the last inference consisted of."""
        count = ctypes.c_int()
        self._call("LiteRtGetNumProfilerEvents", self._profiler, ctypes.byref(count))
        if count.value == 0:
            return []
        events = (_Event * count.value)()
        self._call("LiteRtGetProfilerEvents", self._profiler, count, events)
        return [
            Event(
                tag=event.tag.decode(errors="replace"),
                event_type=event.event_type,
                operator=event.operator,
                elapsed_us=event.elapsed_us,
            )
            for event in events
        ]

    def _make_options(self, threads: int) -> Any:
        options = self._make("LiteRtCreateOptions", destroy="LiteRtDestroyOptions")
        self._call("LiteRtSetOptionsHardwareAccelerators", options, _CPU)
        free = _FREE(lambda _: None)  # the texts are Python's
        self._kept.append(free)
        for identifier, text in (
            (b"runtime_options_string", b"enable_profiling = true\n"),
            (b"xnnpack", f"num_threads = {threads}\n".encode()),
        ):
            payload = ctypes.create_string_buffer(text)
            self._kept.append(payload)
            self._call(
                "LiteRtAddOpaqueOptions", options, self._make("LiteRtCreateOpaqueOptions", identifier, payload, free)
            )
        return options

    def _list_tensors(self, kind: str) -> list[Any]:
        count = ctypes.c_size_t()
        self._call(f"LiteRtGetNumSignature{kind}s", self._signature, ctypes.byref(count))
        return [
            self._make(f"LiteRtGetSignature{kind}TensorByIndex", self._signature, ctypes.c_size_t(index))
            for index in range(count.value)
        ]

    def _read_name(self, tensor: Any) -> str:
        name = ctypes.c_char_p()
        self._call("LiteRtGetTensorName", tensor, ctypes.byref(name))
        return (name.value or b"").decode(errors="replace")

    def _read_type(self, tensor: Any) -> Any:
        words = (ctypes.c_int32 * _TYPE_WORDS)()
        self._call("LiteRtGetRankedTensorType", tensor, words)
        return words

    def _read_shape(self, tensor: Any) -> tuple[int, ...]:
        return _read_layout(self._read_type(tensor)[1:])

    def _allocate_outputs(self) -> list[tuple[int, ...]]:
        """Has the model allocated for its inputs' shapes; returns those of its outputs."""
        count = len(self._list_tensors("Output"))
        layouts = (ctypes.c_int32 * (_LAYOUT_WORDS * count))()
        self._call(
            "LiteRtGetCompiledModelOutputTensorLayouts", self._compiled, ctypes.c_size_t(0), ctypes.c_size_t(count),
            layouts, ctypes.c_bool(True),
        )  # fmt: skip
        starts = range(0, len(layouts), _LAYOUT_WORDS)
        return [_read_layout(layouts[start : start + _LAYOUT_WORDS]) for start in starts]

    def _make_buffers(self, kind: str, shapes: Sequence[Sequence[int]]) -> list[Any]:
        """Makes the buffers of inputs or outputs, of these shapes."""
        buffers = []
        for number, tensor in enumerate(self._list_tensors(kind)):
            index = ctypes.c_size_t(number)
            words = self._read_type(tensor)
            words[2 : 2 + len(shapes[number])] = list(shapes[number])
            needs = self._make(
                f"LiteRtGetCompiledModel{kind}BufferRequirements", self._compiled, ctypes.c_size_t(0), index
            )
            buffers.append(
                self._make(
                    "LiteRtCreateManagedTensorBufferFromRequirements",
                    self._environment,
                    words,
                    needs,
                    destroy="LiteRtDestroyTensorBuffer",
                )
            )
        return buffers

    def _make(self, function: str, *arguments: Any, destroy: str | None = None) -> Any:
        """Calls what gives a handle by its last argument."""
        handle = _Handle()
        self._call(function, *arguments, ctypes.byref(handle))
        if destroy is not None:
            self._close.append(lambda: getattr(self._library, destroy)(handle))
        return handle

    def _call(self, function: str, *arguments: Any) -> None:
        status = getattr(self._library, function)(*arguments)
        if status != 0:
            raise MeasurementInvalidError(f"LiteRT's profiler cannot run this model: {function} gave status {status}")


def _read_layout(words: Sequence[int]) -> tuple[int, ...]:
    """Returns the shape that a `LiteRtLayout` holds."""
    return tuple(words[1 : 1 + min(_MAX_RANK, words[0] & _RANK_MASK)])


def load_library() -> Any:
    """Returns LiteRT's library, which the Python package has loaded already or will load.

    Raises:
        MeasurementInvalidError: It is not there.
    """
    spec = importlib.util.find_spec("ai_edge_litert")
    folders = [] if spec is None else list(spec.submodule_search_locations or ())
    path = next((Path(folder) / "libLiteRt.so" for folder in folders), None)
    if path is None or not path.is_file():
        raise MeasurementInvalidError("this TFLite runtime has no profiler of operators: ai-edge-litert has one")
    return ctypes.CDLL(str(path))
