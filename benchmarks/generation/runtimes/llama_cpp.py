"""A GGUF file in llama.cpp, by the functions of its `llama.h`; the libraries are those of node-llama-cpp, as they come.

Structures of parameters are taken as they are returned, with the defaults of the library, and handed on: what is in
them changes from release to release, and only the number of threads is set, by a function.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from generation.greedy import Answer, Logits, Prompt, decode

CONTEXT = 512
"""Tokens that the default context takes, and that a batch takes at most."""


class Parameters(ctypes.Structure):
    """Room for any structure of parameters; the library reads as much of it as it knows."""

    _fields_ = (("bytes", ctypes.c_uint8 * 1024),)


class _Batch(ctypes.Structure):
    _fields_ = (
        ("n_tokens", ctypes.c_int32),
        ("token", ctypes.POINTER(ctypes.c_int32)),
        ("embd", ctypes.c_void_p),
        ("pos", ctypes.c_void_p),
        ("n_seq_id", ctypes.c_void_p),
        ("seq_id", ctypes.c_void_p),
        ("logits", ctypes.POINTER(ctypes.c_int8)),
    )


def open_library() -> ctypes.CDLL:
    """Returns llama.cpp with the kernels that suit this processor best, which it chooses itself."""
    folder = Path(sys.prefix) / "node_modules" / "@node-llama-cpp" / "linux-x64" / "bins" / "linux-x64"
    names = ["libggml-base.so", next(folder.glob("libggml.*.so")).name]
    _, ggml = (ctypes.CDLL(str(folder / name), mode=ctypes.RTLD_GLOBAL) for name in names)
    ggml.ggml_backend_load_all_from_path(str(folder).encode())
    library = ctypes.CDLL(str(next(folder.glob("libllama.v*.so"))))
    for name in ("model", "context", "model_quantize"):
        getattr(library, f"llama_{name}_default_params").restype = Parameters
    for name in ("model_load_from_file", "init_from_model", "model_get_vocab", "get_memory"):
        getattr(library, f"llama_{name}").restype = ctypes.c_void_p
    library.llama_get_logits.restype = library.llama_get_logits_ith.restype = ctypes.POINTER(ctypes.c_float)
    library.llama_decode.argtypes = [ctypes.c_void_p, _Batch]
    library.llama_init_from_model.argtypes = [ctypes.c_void_p, Parameters]
    library.llama_model_load_from_file.argtypes = [ctypes.c_char_p, Parameters]
    return library


class _Loaded:
    def __init__(self, file: str, threads: int) -> None:
        self._llama = open_library()
        self._llama.llama_backend_init()
        model = self._llama.llama_model_load_from_file(file.encode(), self._llama.llama_model_default_params())
        if not model:
            raise ValueError(f"llama.cpp does not load {file}")
        self._context = ctypes.c_void_p(
            self._llama.llama_init_from_model(model, self._llama.llama_context_default_params())
        )
        self._llama.llama_set_n_threads(self._context, threads, threads)
        vocabulary = ctypes.c_void_p(self._llama.llama_model_get_vocab(ctypes.c_void_p(model)))
        self._words = self._llama.llama_vocab_n_tokens(vocabulary)

    def generate(self, prompt: Prompt, count: int) -> Answer:
        if len(prompt) + count > CONTEXT:
            raise ValueError(f"the default context takes {CONTEXT} tokens")
        return decode(self._read, lambda token: self._decode([token]), prompt, count)

    def score(self, tokens: Prompt) -> Logits:
        self._forget()
        self._run(tokens, (ctypes.c_int8 * len(tokens))(*[1] * len(tokens)))
        return self._take(self._llama.llama_get_logits(self._context), len(tokens)).copy()

    def _read(self, prompt: Prompt) -> Logits:
        self._forget()
        return self._decode(prompt)

    def _decode(self, tokens: Prompt) -> Logits:
        self._run(tokens, None)
        last: Logits = self._take(self._llama.llama_get_logits_ith(self._context, -1), 1)[0]
        return last

    def _forget(self) -> None:
        memory = ctypes.c_void_p(self._llama.llama_get_memory(self._context))
        self._llama.llama_memory_clear(memory, ctypes.c_bool(True))

    def _run(self, tokens: Prompt, wanted: Any) -> None:
        batch = _Batch(n_tokens=len(tokens), token=(ctypes.c_int32 * len(tokens))(*tokens), logits=wanted)
        code = self._llama.llama_decode(self._context, batch)
        if code != 0:
            raise ValueError(f"llama_decode returns {code}")

    def _take(self, pointer: Any, rows: int) -> Logits:
        logits: Logits = np.ctypeslib.as_array(pointer, (rows, self._words))
        return logits


def load(spec: Mapping[str, Any]) -> _Loaded:
    """Loads the file."""
    return _Loaded(spec["file"], spec["threads"])
