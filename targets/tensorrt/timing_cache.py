"""TensorRT's timing cache between builds: what was timed once on a GPU is not timed again.

What it holds is specific to the GPU, to TensorRT's version and to CUDA (NVIDIA, "Optimizing Builder Performance"), so
there is one file for each. Builds that end at the same time lose nothing: each adds what it timed to what lies on disk
by then, under a lock. No fault of a cache fails a build.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any

from modelwright.core.errors import ModelwrightError
from modelwright.core.files import write_bytes
from modelwright.core.locks import lock_file

_HEADER = re.compile(rb"modelwright timing cache 1 ([0-9a-f]{64})\n")
_HEADER_BYTES = len(b"modelwright timing cache 1 \n") + 64


def find_cache_file(folder: Path, version: str, gpu_name: str, compute_capability: str, cuda_version: str) -> Path:
    """Returns the file for a GPU and a version of TensorRT.

    Args:
        folder: Where caches lie.
        version: Of TensorRT, in full.
        gpu_name: As the driver says it.
        compute_capability: `8.9`.
        cuda_version: That the driver supports, `13.0`.
    """
    parts = (f"tensorrt-{version}", gpu_name, f"sm{compute_capability}", f"cuda-{cuda_version}")
    return folder / (re.sub(r"[^a-z0-9.-]+", "-", "_".join(parts).lower()) + ".timings")


class TimingCache:
    """A cache file and what happened to it during one build.

    Attributes:
        path: The file.
        state: What the file was: `new`, `reused`, or why it was not used.
        notes: Sentences for the user about what went wrong.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.state = "new"
        self.notes: list[str] = []
        self._read = b""

    def attach(self, config: Any) -> None:
        """Gives the builder what was timed before; an empty cache where that is damaged or from elsewhere.

        Args:
            config: TensorRT's `IBuilderConfig`.
        """
        self._read = self._load()
        if self._read:
            cache = _make_cache(config, self._read)
            if cache is not None and config.set_timing_cache(cache, False):
                self.state = "reused"
                return
            self._ignore("TensorRT refused it")
        empty = _make_cache(config, b"")
        if empty is None or not config.set_timing_cache(empty, False):
            self._ignore("TensorRT took no empty one either")

    def save(self, config: Any) -> None:
        """Adds what was timed to what lies on disk by now.

        Args:
            config: The configuration that `attach` was called with, after the build.
        """
        mine = config.get_timing_cache()
        if mine is None:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with lock_file(self.path.with_suffix(".lock"), "this timing cache"):
                stored = self._load()
                if stored and stored != self._read:
                    theirs = _make_cache(config, stored)
                    if theirs is None or not mine.combine(theirs, False):
                        self._ignore("what another build left could not be added")
                data = bytes(mine.serialize())
                if data != stored:
                    _write(self.path, data)
        except (OSError, ModelwrightError) as error:
            self.notes.append(f"the timing cache was not kept, the next build times again: {error}")

    def describe(self) -> dict[str, str]:
        """Returns a JSON form for the recipe; the file's name tells what it is for, its folder is nobody's business."""
        return {"file": self.path.name, "state": self.state}

    def _load(self) -> bytes:
        """Returns the vendor's bytes; none where the file is not what was written."""
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return b""
        except OSError as error:
            self._ignore(str(error))
            return b""
        match = _HEADER.match(data)
        payload = data[_HEADER_BYTES:]
        if match is None or hashlib.sha256(payload).hexdigest().encode() != match.group(1):
            self._ignore("it is damaged")
            return b""
        return payload

    def _ignore(self, why: str) -> None:
        self.state = f"not used: {why}"
        note = f"the timing cache {self.path.name} was not used: {why}"
        if note not in self.notes:
            self.notes.append(note)


def _make_cache(config: Any, data: bytes) -> Any:
    """Returns TensorRT's cache object; None when it cannot make one of these bytes."""
    try:
        return config.create_timing_cache(data)
    except (RuntimeError, TypeError, ValueError):  # what pybind makes of a null pointer or an exception of C++
        return None


def _write(path: Path, payload: bytes) -> None:
    digest = hashlib.sha256(payload).hexdigest().encode()
    write_bytes(path, b"modelwright timing cache 1 " + digest + b"\n" + payload)
