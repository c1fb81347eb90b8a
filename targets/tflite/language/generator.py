"""Generating text with a file of two graphs: one reads prompts, the other a token beside the cache, which lies here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from modelwright.core.errors import BadInputError, MeasurementInvalidError
from modelwright.core.records.language import LanguageModel
from modelwright.targets.language.contract import Generator, Logits, Tokens
from modelwright.targets.options import RunSettings
from modelwright.targets.readiness import package_versions, require_import
from modelwright.targets.tflite.language.buffers import GraphBuffers
from modelwright.targets.tflite.language.decoder import (
    DECODE,
    HIDDEN,
    LOGITS,
    OWN_PLACE,
    POSITIONS,
    PREFILL,
    ROWS,
    TOKENS,
    name_mask,
    name_parts,
    read_window,
)
from modelwright.targets.tflite.language.file_facts import describe_file

_SPARE = 64
"""Tokens that a cache has room for beyond a prompt, at least."""
_STEP = 128
"""Tokens: capacities of caches are multiples, so that prompts of different lengths often share one."""
_TYPES = dict.fromkeys((TOKENS, POSITIONS, ROWS), np.int32)
_PACKED_ONCE = ":memory:"
"""Where XNNPACK keeps packed weights for both graphs; without it each packs its own."""


class TfliteGenerator(Generator):
    """A file that is loaded.

    Args:
        path: Of the file.
        record: Of the model.
        settings: How to run.
    """

    def __init__(self, path: Path, record: LanguageModel, settings: RunSettings) -> None:
        self._path, self._record, self._settings = path, record, settings
        compiled_model = require_import("ai_edge_litert.compiled_model", "tflite-run")
        options = require_import("ai_edge_litert.options", "tflite-run")
        cpu = options.CpuOptions(num_threads=settings.threads, xnnpack_weight_cache_path=_PACKED_ONCE)
        try:
            self._compiled = compiled_model.CompiledModel.from_file(str(path), options=options.Options(cpu_options=cpu))
        except (RuntimeError, ValueError) as error:
            raise _cannot_load(path, str(error)) from error
        inputs = self._compiled.get_signature_list().get(DECODE, {}).get("inputs", ())
        self._windows = [window for name in inputs for window in read_window(name)]
        self._parts = [name for layer in range(record.layers) for name in name_parts(layer)]
        self._prompt: GraphBuffers | None = None
        self._cache: _Cache | None = None

    def close(self) -> None:
        """Frees the file and all buffers."""
        self._prompt = self._cache = None
        self._compiled.close()

    def prefill(self, tokens: Tokens, mask: Tokens | None = None) -> Logits:
        batch, length = tokens.shape
        lengths = np.full(batch, length) if mask is None else mask.sum(axis=1)
        cache = self._prepare_cache(batch, int(lengths.max()))
        logits = np.empty((batch, self._record.vocab_size), np.float32)
        for row, count in enumerate(lengths):
            found = self._read_text(tokens[row, length - count :], [count - 1])
            logits[row] = found[LOGITS][0]
            cache.fill(row, found)
        return logits

    def step(self, tokens: Tokens) -> Logits:
        if self._cache is None:
            raise MeasurementInvalidError("a step needs a prompt before it: call prefill first")
        longest = int(self._cache.lengths.max()) + 1
        if longest > self._cache.capacity:
            self._cache = self._cache.grow(self._choose_capacity(longest))
        return self._cache.step(tokens)

    def score(self, tokens: Tokens) -> Logits:
        self._cache = None
        batch, length = tokens.shape
        self._choose_capacity(length)
        if batch == 1:
            return np.asarray(self._read_text(tokens[0], range(length))[LOGITS])[None]
        return np.stack([self._read_text(row, range(length))[LOGITS] for row in tokens])

    def cache_bytes(self) -> int | None:
        return 0 if self._cache is None else self._cache.size_bytes

    def describe_execution(self) -> dict[str, Any]:
        """Returns threads, and the file's operators for one token, which LiteRT runs as they are."""
        version = package_versions("ai-edge-litert").get("ai-edge-litert", "")
        source = f"operators of the file, run by ai-edge-litert {version}".strip()
        return {"threads": self._settings.threads, "source": source, **describe_file(self._path)}

    def _choose_capacity(self, least: int) -> int:
        most = self._record.context_length
        if least > most:
            raise BadInputError(
                f"{least:,} tokens are more than the context of the model, {most:,}",
                hint="give shorter prompts, or fewer tokens to generate",
            )
        return min(most, -(-(least + _SPARE) // _STEP) * _STEP)

    def _prepare_cache(self, batch: int, longest: int) -> _Cache:
        """Returns an empty cache: the one that is there, where it fits and is not much too long."""
        capacity, cache = self._choose_capacity(longest), self._cache
        if cache is None or cache.batch != batch or not capacity <= cache.capacity <= 2 * capacity:
            self._cache = None  # freed before the next one is there
            cache = _Cache(self._compiled, self._record, self._windows, batch, capacity)
            self._cache = cache
        cache.clear()
        return cache

    def _read_text(self, tokens: Tokens, rows: Sequence[int]) -> dict[str, Any]:
        """Runs one text from its beginning; returns logits, and the keys and values of its tokens."""
        length, record = len(tokens), self._record
        buffers = self._prompt
        wanted = ((length,), (len(rows),))
        if buffers is None or (buffers.arrays[TOKENS].shape, buffers.arrays[ROWS].shape) != wanted:
            self._prompt = None
            masks = {name_mask(window): (1, 1, length, length) for window in self._windows}
            inputs = {TOKENS: (length,), POSITIONS: (length,), ROWS: (len(rows),), **masks}
            new = dict.fromkeys((f"new_{name}" for name in self._parts), (record.kv_heads, length, record.head_dim))
            outputs = {LOGITS: (len(rows), record.vocab_size), **new}
            buffers = self._prompt = GraphBuffers(self._compiled, PREFILL, inputs, outputs, _TYPES)
            buffers.arrays[POSITIONS][:] = places = np.arange(length)
            for window in self._windows:
                distance = places[:, None] - places
                seen = (distance >= 0) & (distance < (window or length))
                buffers.arrays[name_mask(window)][0, 0] = np.where(seen, 0, HIDDEN)
        buffers.arrays[TOKENS][:] = tokens
        buffers.arrays[ROWS][:] = rows
        buffers.run()
        return buffers.arrays


class _Cache:
    """Keys and values of all layers, and the graph that reads a token beside them.

    Attributes:
        batch: Rows.
        capacity: Tokens of a row that there is room for.
        lengths: int [batch]: tokens of each row.
    """

    def __init__(
        self, compiled: Any, record: LanguageModel, windows: Sequence[int | None], batch: int, capacity: int
    ) -> None:
        self._compiled, self._record, self._windows = compiled, record, windows
        self.batch, self.capacity, self.lengths = batch, capacity, np.zeros(batch, np.int64)
        self._names = [name for layer in range(record.layers) for name in name_parts(layer)]
        row = (batch, 1, 1, capacity)
        inputs = {
            **dict.fromkeys((TOKENS, POSITIONS), (batch,)),
            **dict.fromkeys((OWN_PLACE, *map(name_mask, windows)), row),
            **dict.fromkeys(self._names, (batch, record.kv_heads, capacity, record.head_dim)),
        }
        new = dict.fromkeys((f"new_{name}" for name in self._names), (batch, record.kv_heads, 1, record.head_dim))
        outputs = {LOGITS: (batch, record.vocab_size), **new}
        self._buffers = GraphBuffers(compiled, DECODE, inputs, outputs, _TYPES)

    @property
    def size_bytes(self) -> int:
        """Of the room that there is, all of which is read for every token."""
        return self.batch * self.capacity * self._record.cache_bytes_per_token

    def clear(self) -> None:
        """Forgets all tokens. What comes after a row's last token is zero: the graph adds to it."""
        self.lengths[:] = 0
        for name in self._names:
            self._buffers.arrays[name].fill(0)

    def fill(self, row: int, text: dict[str, Any]) -> None:
        """Takes what the other graph made of a prompt."""
        for name in self._names:
            values = text[f"new_{name}"]
            self._buffers.arrays[name][row, :, : values.shape[1]] = values
        self.lengths[row] = len(text[TOKENS])

    def step(self, tokens: Tokens) -> Logits:
        """Reads one more token of each row."""
        arrays = self._buffers.arrays
        places, rows = self.lengths, np.arange(self.batch)
        arrays[TOKENS][:], arrays[POSITIONS][:] = tokens, places
        arrays[OWN_PLACE].fill(0)
        arrays[OWN_PLACE][rows, 0, 0, places] = 1
        distance = places[:, None] - np.arange(self.capacity)
        for window in self._windows:
            seen = (distance >= 0) & (distance < (window or self.capacity))
            arrays[name_mask(window)][:, 0, 0] = np.where(seen, 0, HIDDEN)
        self._buffers.run()
        for name in self._names:
            arrays[name][rows, :, places] = arrays[f"new_{name}"][:, :, 0]
        self.lengths += 1
        return np.asarray(arrays[LOGITS])

    def grow(self, capacity: int) -> _Cache:
        """Returns a cache with room for more tokens."""
        arrays = self._buffers.arrays
        kept = {name: arrays[name].copy() for name in self._names}
        larger = _Cache(self._compiled, self._record, self._windows, self.batch, capacity)
        larger.clear()
        for name, values in kept.items():
            larger._buffers.arrays[name][:, :, : self.capacity] = values
        larger.lengths[:] = self.lengths
        return larger


def _cannot_load(path: Path, why: str) -> BadInputError:
    return BadInputError(
        f"LiteRT cannot load {path}",
        hint="build the artifact again with this version; the ort-* targets may run this model",
        detail=why,
    )
