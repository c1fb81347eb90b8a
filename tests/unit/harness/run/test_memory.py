"""What a process holds, with real processes."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from modelwright.core.process.child import Child
from modelwright.harness.run.memory import read_private_bytes

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
        inside, outside = read_private_bytes(tmp_path), read_private_bytes(tmp_path / "other")
    assert inside is not None
    assert outside is not None
    assert inside - outside == pytest.approx(4 * MIB, abs=0.25 * MIB)
