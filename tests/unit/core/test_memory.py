"""What memory is left is what the system has, or what the container allows."""

from __future__ import annotations

from pathlib import Path

from modelwright.core.memory import read_available_bytes


def write(root: Path, name: str, text: str) -> None:
    (root / name).parent.mkdir(parents=True, exist_ok=True)
    (root / name).write_text(text)


def test_what_the_system_has_is_read(tmp_path: Path) -> None:
    assert read_available_bytes(tmp_path) is None
    write(tmp_path, "proc/meminfo", "MemTotal:  16000 kB\nMemFree: 10 kB\nMemAvailable:  2000 kB\n")
    assert read_available_bytes(tmp_path) == 2000 * 1024


def test_a_container_may_have_less_and_cached_files_are_free(tmp_path: Path) -> None:
    write(tmp_path, "proc/meminfo", "MemAvailable:  2000 kB\n")
    write(tmp_path, "sys/fs/cgroup/memory.max", "1000000\n")
    write(tmp_path, "sys/fs/cgroup/memory.current", "900000\n")
    write(tmp_path, "sys/fs/cgroup/memory.stat", "anon 500000\nactive_file 100000\ninactive_file 300000\n")
    assert read_available_bytes(tmp_path) == 500_000
    write(tmp_path, "sys/fs/cgroup/memory.max", "max\n")
    assert read_available_bytes(tmp_path) == 2000 * 1024
