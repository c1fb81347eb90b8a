"""What a measuring process tells of itself, with real processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import sealing

from modelwright.core.errors import MeasurementInvalidError
from modelwright.core.process.child import Child
from modelwright.core.records.artifact_files import MANIFEST, REFERENCE, hash_files
from modelwright.harness.run import worker

MIB = 2**20
HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


def test_siblings_do_not_change_what_a_process_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes that hold 10 MiB each had proportional set sizes that grew by 0, 0 and 10 MiB.

    Each loads numpy's libraries, as artifacts of one runtime load the runtime's, and the next starts meanwhile.
    """
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    children = [Child(f"holding {index}") for index in range(3)]
    try:
        before = [child.call("holding:look", {"folder": str(tmp_path)}) for child in children]
        for child in children:
            child.call("holding:hold", {"size_bytes": 10 * MIB})
        after = [child.call("holding:look", {"folder": str(tmp_path)}) for child in children]
    finally:
        for child in children:
            child.close()
    added = [(then - now) / MIB for now, then in zip(before, after, strict=True)]
    assert added == pytest.approx([10.0] * 3, abs=0.5)


def test_what_is_mapped_of_the_artifact_is_its_memory(tmp_path: Path) -> None:
    import mmap

    weights = tmp_path / "weights.bin"
    weights.write_bytes(b"w" * 4 * MIB)
    with weights.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        assert sum(mapped[:: mmap.PAGESIZE]) > 0
        inside, outside = worker.read_private_bytes(tmp_path), worker.read_private_bytes(tmp_path / "other")
    assert inside is not None
    assert outside is not None
    assert inside - outside == pytest.approx(4 * MIB, abs=0.25 * MIB)


def make_artifact(folder: Path) -> Path:
    """Writes an artifact of a runtime that there is not, with one packed sample."""
    folder.mkdir()
    (folder / "model.bin").write_bytes(b"weights")
    np.savez(folder / REFERENCE, **{"input:x": np.zeros((1, 1, 3), np.float32), "output:y": np.zeros((1, 1, 3))})
    spec = {"name": "x", "dtype": "float32", "shape": ["batch", 3]}
    earlier = json.loads((HERE.parents[1] / "core" / "records" / "earlier" / MANIFEST).read_text())
    changes = {
        "schema": 2, "target": "failing-fp32", "model_file": "model.bin", "files": hash_files(folder), "proof": None,
        "signature": {"inputs": [spec], "outputs": [spec | {"name": "y"}]},
    }  # fmt: skip
    sealing.write_record(folder / MANIFEST, earlier | changes)
    return folder


@pytest.mark.parametrize(
    ("stage", "what", "detail"),
    [
        ("load", "cannot load", "KeyError: 'binding'"),
        ("bind", "cannot run", "TypeError: 'dict' object cannot be interpreted as an integer"),
        ("call", "cannot run", "TypeError: 'dict' object cannot be interpreted as an integer"),
        ("run", "cannot run", "TypeError: 'dict' object cannot be interpreted as an integer"),
    ],
)
def test_what_a_runtime_raises_is_one_error_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str, what: str, detail: str
) -> None:
    """Recipes come from anywhere: a number in one may be a table."""
    monkeypatch.setenv("PYTHONPATH", str(HERE))
    folder = make_artifact(tmp_path / "a")
    with Child("measuring a") as child, pytest.raises(MeasurementInvalidError) as caught:
        child.call("failing:measure", {"directory": str(folder), "stage": stage})
    assert caught.value.message == f"a: failing-fp32 {what} model.bin"
    assert caught.value.detail == detail
    assert "build it again" in (caught.value.hint or "")
