"""Archives of arrays that are not what they look like."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from modelwright.core.errors import BadInputError
from modelwright.core.samples.archives import read_arrays, unpack_archive
from modelwright.core.samples.materialize import materialize_samples
from modelwright.core.scratch import scratch_directory

ROWS = np.arange(6, dtype=np.float32).reshape(2, 3)


def to_bytes(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def pack(path: Path, members: Sequence[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> Path:
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", compression) as archive:
        warnings.simplefilter("ignore", UserWarning)  # that a name is there twice
        for name, content in members:
            archive.writestr(name, content)
    return path


@pytest.mark.parametrize("names", [("x.npy", "x.npy"), ("x.npy", "x")])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_an_array_that_is_there_twice_is_refused(tmp_path: Path, names: tuple[str, str], compression: int) -> None:
    """numpy takes the last one, others the first."""
    path = pack(tmp_path / "s.npz", [(names[0], to_bytes(ROWS)), (names[1], to_bytes(2 * ROWS))], compression)
    with pytest.raises(BadInputError, match="the array x is there twice"):
        read_arrays(path)
    with pytest.raises(BadInputError, match="the array x is there twice"):
        unpack_archive(path, tmp_path / "unpacked")


def test_what_unpacks_to_gigabytes_is_not_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    block = bytes(2**24)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("x.npy", "w") as member:
        for _ in range(66):
            member.write(block)
    assert path.stat().st_size < 2 * 2**20
    with pytest.raises(BadInputError, match="MB would unpack to 1,107 MB") as caught:
        materialize_samples(str(path), None, tmp_path / "unpacked")
    assert "uncompressed" in (caught.value.hint or "")
    with pytest.raises(BadInputError, match="would unpack to"):
        read_arrays(path)


def test_what_compresses_well_is_read(tmp_path: Path) -> None:
    path = tmp_path / "zeros.npz"
    np.savez_compressed(path, x=np.zeros((4096, 1024), np.float32))
    assert read_arrays(path)["x"].shape == (4096, 1024)


def test_thousands_of_arrays_are_one_error(tmp_path: Path) -> None:
    content = to_bytes(ROWS)
    path = pack(tmp_path / "s.npz", [(f"a{index}.npy", content) for index in range(1001)])
    with pytest.raises(BadInputError, match="it holds 1,001 arrays"):
        read_arrays(path)
    with pytest.raises(BadInputError, match="it holds 1,001 arrays"):
        read_arrays(unpack_folder(path, tmp_path / "folder"))


def unpack_folder(path: Path, folder: Path) -> Path:
    folder.mkdir()
    with zipfile.ZipFile(path) as archive:
        archive.extractall(folder)
    return folder


def test_an_empty_archive_holds_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="holds no arrays"):
        read_arrays(pack(tmp_path / "s.npz", []))


def test_a_long_complaint_of_a_reader_is_cut(tmp_path: Path) -> None:
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {'(' * 900}{')' * 900}, }}".encode()
    header += b" " * (63 - (10 + len(header)) % 64) + b"\n"
    content = b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header
    with pytest.raises(BadInputError, match="cannot be read as samples") as caught:
        read_arrays(pack(tmp_path / "s.npz", [("x.npy", content)]))
    assert len(caught.value.message) < 400 + len(str(tmp_path))


def test_what_a_killed_process_had_unpacked_is_cleared_away(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "s.npz", x=np.zeros((4, 3), np.float32))
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    code = """
import os, signal, sys
from pathlib import Path
from modelwright.core.samples import archives
archives._map_npy = lambda path: os.kill(os.getpid(), signal.SIGKILL)
archives.read_arrays(Path(sys.argv[1]))
"""
    variables = {**os.environ, "TMPDIR": str(temporary)}
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "s.npz"], check=False, timeout=60, env=variables)
    assert done.returncode == -signal.SIGKILL
    assert list(temporary.iterdir()) != []
    with scratch_directory(temporary):
        assert len(list(temporary.iterdir())) == 1, "its own folder only"
    assert list(temporary.iterdir()) == []
