"""How many threads train. For child processes only."""

from __future__ import annotations

import os

from modelwright.exporters.torch.source import import_torch

LEAST_MACS = 100_000_000
"""Of a step: with fewer, two threads wait for each other for longer than they compute, and one alone is the faster."""
_ASKED = "OMP_NUM_THREADS"


def settle_threads(macs: int, batch: int) -> None:
    """Lets one thread train where a step is small, unless the user says how many.

    The size decides and no clock does, so that a seed gives the same sums everywhere.

    Args:
        macs: Multiplications with an addition of one sample, forwards.
        batch: Samples a step.
    """
    if _ASKED not in os.environ and macs * batch < LEAST_MACS:
        import_torch().set_num_threads(1)
