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

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")


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
