"""Energy estimated from a profile's power figures, where no meter can be read."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.harness.meters.energy import Energy
from modelwright.profiles.schema import Power, PowerScope, Profile

_UNCOVERED: Mapping[str, PowerScope] = {"cpu": "GPU board", "cuda": "CPU package"}
"""What says nothing of a device. A module's or a board's figures cover both."""


def estimate_energy(
    power: Power | None,
    latency_mean_ms: float | None,
    profile: Profile,
    device: str = "cpu",
    *,
    threads: int = 1,
    cores: int = 1,
) -> Energy:
    """Returns an estimate: the profile's power while inferring times the mean latency.

    The profile's figure is of all cores at work. On a CPU, the part above idle is drawn by the share of the cores that
    is used: idle + (inferring - idle) * min(1, threads / cores). Where nobody publishes the idle power it is not in it.

    Args:
        power: The profile's figures.
        latency_mean_ms: Of one inference, transfers included.
        profile: Named in the reason where there is no estimate.
        device: Where it ran, `cpu` or `cuda`: the figures must cover it.
        threads: That it ran with.
        cores: That the figures are of.
    """
    if power is None:
        return Energy(
            reason=f"no meter can be read here and profile {profile.name} has no power figures; "
            "give a profile with a [power] table by --profile"
        )
    if power.scope == _UNCOVERED[device]:
        where = "the CPU" if device == "cpu" else "the GPU"
        return Energy(
            reason=f"the power figures of profile {profile.name} are of the {power.scope}, and this ran on {where}"
        )
    if latency_mean_ms is None:
        return Energy(reason="no latency was measured")
    seconds = latency_mean_ms / 1e3
    share = min(1.0, threads / cores) if device == "cpu" else 1.0
    idle_w = power.idle_w or 0.0
    active_w = max(0.0, power.inference_power_w - idle_w) * share
    above_idle_w = None if power.idle_w is None else active_w
    used = "" if share == 1 else f"{idle_w:g} W idle and {threads} of {cores} cores' share of the rest; "
    return Energy(
        per_inference_j=(idle_w + active_w) * seconds,
        above_idle_per_inference_j=None if above_idle_w is None else above_idle_w * seconds,
        idle_power_w=power.idle_w,
        mean_power_w=idle_w + active_w,
        source="estimated:tdp_util",
        scope=power.scope,
        model=used + power.source,
    )
