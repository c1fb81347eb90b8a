"""A nominal power model for a machine that has none of its own."""

from __future__ import annotations

from msgspec.structs import replace

from modelwright.profiles.builtin import builtin_profiles
from modelwright.profiles.fit import explain_misfit
from modelwright.profiles.schema import Power, Profile


def nominal_power(host: Profile) -> Power | None:
    """Returns the CPU's or board's power model from the built-in profile that fits; None if none does.

    The named machine is taken before the class. GPUs are left out: what their board draws says nothing
    about a target on the CPU, and their own meter is better than any estimate.
    """
    candidates = [profile for profile in builtin_profiles() if profile.names_machine or profile.is_class]
    for profile in sorted(candidates, key=lambda profile: profile.is_class):
        if profile.power is not None and not explain_misfit(profile, host):
            return power_on(profile, host)
    return None


def power_on(profile: Profile, host: Profile) -> Power | None:
    """Returns a profile's power model as it applies to a host that fits it.

    A class's figures are those of its reference part. They are scaled by cores, and the source says so.

    Args:
        profile: The profile that is measured under.
        host: The machine that it is measured on.
    """
    power = profile.power
    if power is None or not profile.is_class:
        return power
    factor = host.cores / profile.cores
    part = profile.cpu_model or profile.title
    return replace(
        power,
        tdp_w=power.tdp_w * factor,
        idle_w=None if power.idle_w is None else power.idle_w * factor,
        source=(
            f"nominal figure of the class {profile.name}, not of this CPU: scaled per core from {part} "
            f"({power.tdp_w:g} W / {profile.cores} cores) to {host.cores} cores; {power.source}"
        ),
    )
