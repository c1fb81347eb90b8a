"""The timing cache on disk: reused, safe for builds that end together, and never in a build's way."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from stand_in import tensorrt as stand_in

from modelwright.targets.tensorrt.timing_cache import TimingCache, find_cache_file

BUILD = """
import sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from stand_in import tensorrt as stand_in
from modelwright.targets.tensorrt.timing_cache import TimingCache

path, layer, meeting = Path(sys.argv[2]), sys.argv[3], Path(sys.argv[4])
cache, config = TimingCache(path), stand_in.IBuilderConfig(None)
cache.attach(config)
(meeting / layer).touch()
while len(list(meeting.iterdir())) < 2:
    time.sleep(0.005)
for number in range(200):
    config.cache.entries[f"{layer}-{number}"] = 0.5
cache.save(config)
print(cache.state, cache.notes)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return find_cache_file(tmp_path / "cache", "10.13.0.35", "NVIDIA GeForce RTX 4090", "8.9", "13.0")


def build(path: Path, *layers: str) -> TimingCache:
    """What a build does with its cache."""
    cache, config = TimingCache(path), stand_in.IBuilderConfig(None)
    cache.attach(config)
    for layer in layers:
        config.cache.entries[layer] = 0.5
    cache.save(config)
    return cache


def read_entries(path: Path) -> set[str]:
    config = stand_in.IBuilderConfig(None)
    cache = TimingCache(path)
    cache.attach(config)
    assert cache.state == "reused"
    return set(config.cache.entries)


def wrap(payload: bytes) -> bytes:
    return f"modelwright timing cache 1 {hashlib.sha256(payload).hexdigest()}\n".encode() + payload


def test_one_file_for_each_version_gpu_and_cuda(path: Path) -> None:
    assert path.name == "tensorrt-10.13.0.35-nvidia-geforce-rtx-4090-sm8.9-cuda-13.0.timings"
    names = {
        find_cache_file(Path(), *key).name
        for key in (
            ("10.13.0.35", "NVIDIA L4", "8.9", "13.0"),
            ("10.13.0.36", "NVIDIA L4", "8.9", "13.0"),
            ("10.13.0.35", "NVIDIA L40", "8.9", "13.0"),
            ("10.13.0.35", "NVIDIA L4", "8.9", "12.9"),
        )
    }
    assert len(names) == 4


def test_what_was_timed_is_reused(path: Path) -> None:
    first = build(path, "conv1", "conv2")
    assert first.describe() == {"file": path.name, "state": "new"}
    second = build(path, "conv3")
    assert second.state == "reused"
    assert read_entries(path) == {"conv1", "conv2", "conv3"}
    assert first.notes == second.notes == []


def test_builds_that_end_together_lose_nothing(path: Path, tmp_path: Path) -> None:
    meeting = tmp_path / "meeting"
    meeting.mkdir()
    tests = str(Path(stand_in.__file__).parents[2])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", BUILD, tests, str(path), layer, str(meeting)], stdout=subprocess.PIPE, text=True
        )
        for layer in ("first", "second")
    ]
    outputs = [process.communicate(timeout=60)[0].strip() for process in processes]
    assert outputs == ["new []", "new []"], "each began without the other's timings"
    assert read_entries(path) == {f"{layer}-{number}" for layer in ("first", "second") for number in range(200)}
    assert sorted(child.suffix for child in path.parent.iterdir()) == [".lock", ".timings"]


@pytest.mark.parametrize("content", [b"", b"rubbish", b"modelwright timing cache 1 " + b"0" * 64 + b"\n{}"])
def test_a_damaged_file_is_replaced_with_a_note(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    cache = build(path, "conv1")
    assert cache.state == "not used: it is damaged"
    assert cache.notes == [f"the timing cache {path.name} was not used: it is damaged"]
    assert read_entries(path) == {"conv1"}


def test_a_truncated_file_is_damaged(path: Path) -> None:
    build(path, "conv1")
    path.write_bytes(path.read_bytes()[:-1])
    assert build(path, "conv2").state == "not used: it is damaged"


@pytest.mark.parametrize(
    "payload",
    [
        json.dumps({"version": "10.13.0.35", "gpu": "another GPU", "entries": {"a": 1.0}}).encode(),
        json.dumps({"version": "9.0.0.0", "gpu": "no GPU", "entries": {"a": 1.0}}).encode(),
        b"not what TensorRT writes",
    ],
)
def test_what_tensorrt_refuses_is_replaced_with_a_note(path: Path, payload: bytes) -> None:
    path.parent.mkdir(parents=True)
    path.write_bytes(wrap(payload))
    cache = build(path, "conv1")
    assert cache.notes == [f"the timing cache {path.name} was not used: TensorRT refused it"]
    assert read_entries(path) == {"conv1"}


def test_a_folder_that_cannot_be_written_costs_no_build(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    cache = build(tmp_path / "cache" / "x.timings", "conv1")
    assert any("timing cache" in note for note in cache.notes)
