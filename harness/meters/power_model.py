"""Energy estimated from a profile's power figures, where no meter can be read."""

from __future__ import annotations

from collections.abc import Mapping

from modelwright.harness.meters.energy import Energy
from modelwright.profiles.schema import Power, PowerScope, Profile

_UNCOVERED: Mapping[str, PowerScope] = {"cpu": "GPU board", "cuda": "CPU package"}
"""What says nothing of a device. A module's or a board's figures cover both."""


def estimate_energy(
    power: Power | None, latency_mean_ms: float | None, profile: Profile, device: str = "cpu"
) -> Energy:
    """Returns an estimate: the profile's power while inferring times the mean latency.

    Args:
        power: The profile's figures.
        latency_mean_ms: Of one inference, transfers included.
        profile: Named in the reason where there is no estimate.
        device: Where it ran, `cpu` or `cuda`: the figures must cover it.
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
    above_idle_w = None if power.idle_w is None else max(0.0, power.inference_power_w - power.idle_w)
    return Energy(
        per_inference_j=power.inference_power_w * seconds,
        above_idle_per_inference_j=None if above_idle_w is None else above_idle_w * seconds,
        idle_power_w=power.idle_w,
        mean_power_w=power.inference_power_w,
        source="estimated:tdp_util",
        scope=power.scope,
        model=power.source,
    )
