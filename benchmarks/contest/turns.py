"""Takes turns: each entrant in a process of its own, windows in random order, round after round, several launches."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol, TypeVar

from contest.line_process import LoopFailedError

from modelwright.harness.run.effort import Effort
from modelwright.harness.run.interleave import Window, interleave


class Loop(Protocol):
    """A loaded file that takes turns; see `interleave.Runner`."""

    @property
    def name(self) -> str:
        """Of the entrant."""
        ...

    def run_window(self, window_s: float) -> Window:
        """Takes a turn."""
        ...

    def close(self) -> None:
        """Ends its process."""
        ...


L = TypeVar("L", bound=Loop)


def take_turns(
    names: Sequence[str],
    effort: Effort,
    *,
    open_loop: Callable[[str], L],
    on_opened: Callable[[int, L], None] = lambda _launch, _loop: None,
    on_finished: Callable[[int, L], None] = lambda _launch, _loop: None,
    on_failure: Callable[[str, str], None],
    tell: Callable[[str], None],
) -> Mapping[str, dict[int, Window]]:
    """Runs all rounds of all launches; what fails once stays out, the others go on.

    Args:
        names: Of the entrants; they differ.
        effort: Launches, rounds and windows.
        open_loop: Loads one in a process of its own.
        on_opened: Takes the launch and a loop before the rounds, such as to have it answer samples.
        on_finished: Takes the launch and a loop after the rounds that it came through.
        on_failure: Takes a name and why it is out.
        tell: Takes a line on what is going on.

    Returns:
        Name -> round -> window.
    """
    windows: dict[str, dict[int, Window]] = {name: {} for name in names}
    out: set[str] = set()

    def fail(name: str, reason: str) -> None:
        out.add(name)
        on_failure(name, reason)

    for launch in range(effort.launches):
        first = launch % len(names)  # what is loaded later is slower
        loops: list[L] = []
        with contextlib.ExitStack() as stack:
            for name in [name for name in [*names[first:], *names[:first]] if name not in out]:
                with _reporting(name, fail):
                    loop = open_loop(name)
                    stack.callback(loop.close)
                    on_opened(launch, loop)
                    loops.append(loop)
            tell(f"launch {launch + 1} of {effort.launches}: {len(loops)} plain loops take turns")
            for name, series in interleave(loops, effort, seed=0, launch=launch).items():
                windows[name] |= series.windows
                if series.failure is not None:
                    fail(name, series.failure.message)
            for loop in [loop for loop in loops if loop.name not in out]:
                with _reporting(loop.name, fail):
                    on_finished(launch, loop)
    return {name: found for name, found in windows.items() if name not in out}


@contextlib.contextmanager
def _reporting(name: str, fail: Callable[[str, str], None]) -> Iterator[None]:
    """Has what fails inside cost that entrant alone."""
    try:
        yield
    except LoopFailedError as error:
        fail(name, str(error))
