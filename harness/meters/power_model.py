"""Energy and carbon estimated from a profile's power figures, where no meter can be read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from modelwright.profiles.grid import GridRegion
from modelwright.profiles.schema import Power, PowerScope, Profile

_UNCOVERED: Mapping[str, PowerScope] = {"cpu": "GPU board", "cuda": "CPU package"}
"""What says nothing of a device. A module's or a board's figures cover both."""


def estimate_energy(
    power: Power | None, latency_mean_ms: float | None, profile: Profile, device: str = "cpu"
) -> dict[str, Any]:
    """Returns the energy record of an estimate: the profile's power while inferring times the mean latency.

    Args:
        power: The profile's figures.
        latency_mean_ms: Of one inference, transfers included.
        profile: Named in the reason where there is no estimate.
        device: Where it ran, `cpu` or `cuda`: the figures must cover it.
    """
    if power is None:
        return no_energy(
            f"no meter can be read here and profile {profile.name} has no power figures; "
            "give a profile with a [power] table by --profile"
        )
    if power.scope == _UNCOVERED[device]:
        where = "the CPU" if device == "cpu" else "the GPU"
        return no_energy(
            f"the power figures of profile {profile.name} are of the {power.scope}, and this ran on {where}"
        )
    if latency_mean_ms is None:
        return no_energy("no latency was measured")
    seconds = latency_mean_ms / 1e3
    above_idle_j = None
    if power.idle_w is not None:
        above_idle_j = max(0.0, power.inference_power_w - power.idle_w) * seconds
    return {
        "per_inference_j": power.inference_power_w * seconds,
        "above_idle_per_inference_j": above_idle_j,
        "idle_power_w": power.idle_w,
        "mean_power_w": power.inference_power_w,
        "source": "estimated:tdp_util",
        "scope": power.scope,
        "reason": None,
        "model": power.source,
    }


def estimate_carbon(energy: dict[str, Any], region: GridRegion) -> dict[str, Any]:
    """Returns the carbon record: grams of CO2 equivalent an inference, from the region's yearly average."""
    joules = energy["per_inference_j"]
    return {
        "per_inference_g": None if joules is None else joules / 3.6e6 * region.g_per_kwh,
        "region": region.name,
        "g_per_kwh": region.g_per_kwh,
        "year": region.year,
        "source": region.source,
    }


def no_energy(reason: str) -> dict[str, Any]:
    """Returns the energy record of what has none, and why."""
    return {
        "per_inference_j": None,
        "above_idle_per_inference_j": None,
        "idle_power_w": None,
        "mean_power_w": None,
        "source": None,
        "scope": None,
        "reason": reason,
    }
