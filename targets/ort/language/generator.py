"""Generating text with a fused graph: one session, and a cache that it reads and writes in place."""

from __future__ import annotations

import math
import mmap
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.records.language import LanguageModel
from modelwright.targets.graphs.files import load_model
from modelwright.targets.graphs.run import blame, open_file
from modelwright.targets.language.contract import Generator, Logits, Tokens
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.fuse import LENGTHS, LONGEST, POSITIONS, ROWS
from modelwright.targets.ort.session import prepare_options
from modelwright.targets.ort.settings import read_settings
from modelwright.targets.readiness import require_import

_LEAST_CAPACITY = 256
"""Tokens: a cache has room for as many more, and doubles when it is full."""


class OrtGenerator(Generator):
    """A fused graph that is loaded.

    Args:
        path: Of the graph.
        record: Of the model.
        settings: How to run.
    """

    def __init__(self, path: Path, record: LanguageModel, settings: RunSettings) -> None:
        self._ort = require_import("onnxruntime", "ort-run")
        self._path, self._record, self._settings = path, record, settings
        self._session = open_file(path, settings, MeasurementInvalidError, prepare_options(settings))
        self._needs_positions = any(value.name == POSITIONS for value in self._session.get_inputs())
        self._cache: _Cache | None = None

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        batch, length = tokens.shape
        lengths = np.full(batch, length) if mask is None else mask.sum(axis=1)
        self._cache = None  # freed before the next one is there
        self._cache = _Cache(self._ort, self._record, batch, self._choose_capacity(length + _LEAST_CAPACITY, length))
        self._cache.lengths = lengths.astype(np.int32)
        shifted = tokens if mask is None else _shift_left(tokens, length - lengths)
        return self._run(self._cache, shifted, np.arange(batch) * length + lengths - 1)

    def step(self, tokens: Tokens) -> Logits:
        cache = self._cache
        if cache is None:
            raise MeasurementInvalidError("a step needs a prompt before it: call prefill first")
        cache.lengths = cache.lengths + 1
        longest = int(cache.lengths.max())
        if longest > cache.capacity:
            cache.grow(self._choose_capacity(2 * cache.capacity, longest))
        return self._run(cache, tokens[:, None], np.arange(len(tokens)))

    def score(self, tokens: Tokens) -> Logits:
        self._cache = None
        batch, length = tokens.shape
        cache = _Cache(self._ort, self._record, batch, self._choose_capacity(length, length))
        cache.lengths = np.full(batch, length, np.int32)
        return self._run(cache, tokens, np.arange(batch * length)).reshape(batch, length, -1)

    def cache_bytes(self) -> int | None:
        return 0 if self._cache is None else self._cache.size_bytes

    def describe_execution(self) -> dict[str, Any]:
        """Returns threads, and the operators of the file; ONNX Runtime executes these, and tells no more."""
        operators = Counter(node.op_type for node in load_model(self._path, weights=False).graph.node)
        options: Mapping[str, Any] = self._settings.options
        return {
            "threads": self._settings.threads,
            "spinning": self._settings.threads > 1 and bool(options.get("spinning", True)),
            "operators": dict(operators.most_common()),
            **({"settings": read_settings(self._session.get_session_options(), options)} if options else {}),
        }

    def close(self) -> None:
        """Frees the model and its cache."""
        self._cache = self._session = None

    def _choose_capacity(self, wanted: int, least: int) -> int:
        most = self._record.context_length
        if least > most:
            raise BadInputError(
                f"{least:,} tokens are more than the context of the model, {most:,}",
                hint="give shorter prompts, or fewer tokens to generate",
            )
        return min(wanted, most)

    def _run(self, cache: _Cache, tokens: Tokens, rows: Any) -> Logits:
        longest = int(cache.lengths.max())
        feeds = {
            "input_ids": np.ascontiguousarray(tokens, np.int64),
            LENGTHS: cache.lengths - 1,
            LONGEST: np.array(longest, np.int32),
            ROWS: rows.astype(np.int64),
        }
        if self._needs_positions:
            first = (cache.lengths - 1)[:, None] if tokens.shape[1] == 1 else 0
            feeds[POSITIONS] = first + np.arange(tokens.shape[1], dtype=np.int64) + np.zeros((len(tokens), 1), np.int64)
        binding = self._session.io_binding()
        for name, values in feeds.items():
            binding.bind_cpu_input(name, values)
        binding.bind_output("logits", "cpu")
        cache.bind(binding)
        try:
            self._session.run_with_iobinding(binding)
        except Exception as error:  # onnxruntime raises a class of its own for every status code
            raise MeasurementInvalidError(
                f"{self._path.name} failed in ONNX Runtime{blame(error)}", detail=str(error)
            ) from error
        return np.asarray(binding.get_outputs()[0].numpy(), np.float32)


class _Cache:
    """Keys and values of all layers, in buffers that are longer than what is in them.

    Attributes:
        lengths: int32 [batch]: tokens of each row.
        capacity: Tokens of a row that there is room for.
    """

    lengths: Any

    def __init__(self, ort: Any, record: LanguageModel, batch: int, capacity: int) -> None:
        self._ort, self._record, self.capacity = ort, record, capacity
        shape = (batch, record.kv_heads, capacity, record.head_dim)
        names = [f"{layer}.{part}" for layer in range(record.layers) for part in ("key", "value")]
        self._buffers = {name: _reserve(shape) for name in names}
        self._wrap()

    @property
    def size_bytes(self) -> int:
        """Of the tokens that are in it."""
        return int(self.lengths.sum()) * self._record.cache_bytes_per_token

    def grow(self, capacity: int) -> None:
        """Makes room for more tokens."""
        for name, old in self._buffers.items():
            new = _reserve((*old.shape[:2], capacity, old.shape[3]))
            new[:, :, : self.capacity] = old
            self._buffers[name] = new
        self.capacity = capacity
        self._wrap()

    def bind(self, binding: Any) -> None:
        """Makes the buffers what a run reads its cache from, and writes it to."""
        for name, value in self._values.items():
            binding.bind_ortvalue_input(f"past_key_values.{name}", value)
            binding.bind_ortvalue_output(f"present.{name}", value)

    def _wrap(self) -> None:
        make = self._ort.OrtValue.ortvalue_from_numpy
        self._values = {name: make(buffer) for name, buffer in self._buffers.items()}


def _reserve(shape: tuple[int, ...]) -> Any:
    """Returns zeros that take memory as they are first touched: of a cache, only what is used.

    The system's own pages: what `np.zeros` gives may be memory that was freed before, and is then cleared as a whole.
    """
    pages = mmap.mmap(-1, math.prod(shape) * np.dtype(np.float32).itemsize)
    return np.frombuffer(pages, np.float32).reshape(shape)


def _shift_left(tokens: Tokens, padding: Any) -> Tokens:
    """Moves the padding of each row from its beginning to its end."""
    places = (np.arange(tokens.shape[1]) + padding[:, None]) % tokens.shape[1]
    return np.take_along_axis(tokens, places, axis=1)
