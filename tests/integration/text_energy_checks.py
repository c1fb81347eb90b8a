"""What `test_text_energy.py` asks of a measuring process, in that process."""

from __future__ import annotations

import sys
from typing import Any

from modelwright.harness.run import windows
from modelwright.harness.run.loaded import loaded

_seen: list[str] | None = None
_WATCHED = ("open", "import", "os.listdir", "subprocess.Popen", "socket.connect")


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is not None and event in _WATCHED:
        _seen.append(f"{event} {arguments[0]}")


def run_windows_watched(*, control: bool = False) -> dict[str, Any]:
    """Runs a window of each kind and tells what the process opened, imported or bound meanwhile.

    Args:
        control: Open a file in each inference, as tokenizing or loading would.
    """
    global _seen
    sys.addaudithook(_watch)
    session: Any = loaded.session
    bind, calls = session.bind, loaded.calls
    seen: list[str] = []
    session.bind = lambda feeds: seen.append("bound an input") or bind(feeds)
    if control:
        loaded.calls = [lambda: open("/proc/self/status").close()]  # noqa: PTH123
    _seen = seen
    try:
        told = windows.run_window(0.05)
        alone = windows.run_energy_window(0.05, computation=True)
    finally:
        _seen = None
        session.bind, loaded.calls = bind, calls
    return {"seen": seen, "inferences": [len(told["latencies_ns"]), alone["inferences"]]}


def list_modules() -> list[str]:
    """Returns the packages that the process has imported."""
    return sorted({name.partition(".")[0] for name in sys.modules})
