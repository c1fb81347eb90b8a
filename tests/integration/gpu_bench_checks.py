"""What `test_gpu_bench.py` does in a child process, which finds the fake driver."""

from __future__ import annotations

import os
import time
from typing import Any

from modelwright.core.records.codec import encode
from modelwright.harness.meters import gpu_energy
from modelwright.harness.meters.gpu_bench import open_bench
from modelwright.harness.meters.gpu_watch import WindowOnGpu


def describe_card(*, metered: bool) -> dict[str, Any]:
    """Watches and, with windows cut to a fraction of a second, meters a process that only sleeps."""
    gpu_energy.MIN_WINDOW_S, gpu_energy.SETTLE_S, gpu_energy._MARGIN_S = 0.2, 0.02, 0.05
    gpu_energy.MIN_STEPS = 10
    calls: list[float] = []

    def run_for(seconds: float) -> tuple[int, float]:
        calls.append(seconds)
        time.sleep(seconds)
        return 10, seconds

    with open_bench(metered=metered) as bench:
        bench.measure_idle(loaded=False)
        bench.pids.add(os.getpid())
        before, after = bench.observe(), bench.observe()
        assert before is not None
        assert after is not None
        found = bench.describe(os.getpid(), [WindowOnGpu(before=before, after=after)], run_for)
        return {
            "meters": bench.meters,
            "energy": encode(found.energy),
            "observed": encode(found.observed),
            "memory": [found.memory_bytes, found.memory_reason],
            "ran": len(calls),
        }
