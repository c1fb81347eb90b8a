"""`.npy` files that are written row by row, without holding the array in memory."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_MAGIC = b"\x93NUMPY\x01\x00"
_ALIGNMENT = 64
"""numpy aligns the data to this, so that it can be mapped."""


class NpyWriter:
    """Writes equally shaped rows into one array [rows, ...].

    The header says how many rows there are, which is known last: room for it is left at the start of the file.

    Args:
        path: The file to write; replaced when it exists.
        dtype: Of every row.
        row_shape: Of every row.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], row_shape: tuple[int, ...]) -> None:
        self.dtype = dtype
        self.row_shape = row_shape
        self.count = 0
        self._file = path.open("wb")
        longest = len(_MAGIC) + 2 + len(self._describe(10**18)) + 1
        self._header_bytes = -(-longest // _ALIGNMENT) * _ALIGNMENT
        self._write_header()

    def append(self, row: Array) -> None:
        """Adds a row; its shape and dtype must be the ones given at the start."""
        if row.shape != self.row_shape or row.dtype != self.dtype:
            raise ValueError(f"row is {row.dtype} {list(row.shape)}, expected {self.dtype} {list(self.row_shape)}")
        self._file.write(np.ascontiguousarray(row).tobytes())
        self.count += 1

    def close(self) -> None:
        """Writes the header; without it the file holds no rows."""
        if self._file.closed:
            return
        try:
            self._file.seek(0)
            self._write_header()
        finally:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _describe(self, count: int) -> str:
        header = {
            "descr": np.lib.format.dtype_to_descr(self.dtype),
            "fortran_order": False,
            "shape": (count, *self.row_shape),
        }
        return repr(header)

    def _write_header(self) -> None:
        room = self._header_bytes - len(_MAGIC) - 2
        text = self._describe(self.count).ljust(room - 1) + "\n"
        self._file.write(_MAGIC + room.to_bytes(2, "little") + text.encode("latin1"))
