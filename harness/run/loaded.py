"""What a measuring process has loaded, which stays between the parent's calls."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from modelwright.core.nvidia.cuda import CudaDevice
from modelwright.core.nvidia.driver import explain_out_of_memory
from modelwright.core.records.artifact import Artifact
from modelwright.harness.run.crew import Crew
from modelwright.harness.run.device_timing import Lane
from modelwright.targets.contract import Session, Target


@dataclass
class Loaded:
    """One artifact with its session, bound to its inputs."""

    target: Target | None = None
    artifact: Artifact | None = None
    session: Session | None = None
    calls: list[Callable[[], object]] = field(default_factory=list)
    stack: contextlib.ExitStack = field(default_factory=contextlib.ExitStack)
    turn: int = 0
    gpu: CudaDevice | None = None
    lanes: list[Lane] = field(default_factory=list)
    compute_turn: int = 0
    crew: Crew | None = None


loaded = Loaded()
"""Of this process."""


@contextlib.contextmanager
def explaining_gpu_memory(failure: str) -> Iterator[None]:
    """Turns every vendor's way to run out of the GPU's memory into one error, which says how much is free."""
    try:
        yield
    except Exception as error:
        words = None if loaded.target is None else loaded.target.explain_memory(error)
        if loaded.gpu is None or words is None or "the GPU is out of memory" in str(error):
            raise
        raise explain_out_of_memory(failure, loaded.gpu.memory_info(), words) from error
