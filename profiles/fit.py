"""Whether a machine is the one that a profile describes."""

from __future__ import annotations

from modelwright.core.errors import MeasurementInvalidError
from modelwright.profiles.builtin import builtin_profiles
from modelwright.profiles.schema import Accelerator, Profile

# Firmware, kernel and graphics keep some of the memory that is printed on the box.
_MEMORY_SHARE = 0.9


def explain_misfit(profile: Profile, host: Profile) -> list[str]:
    """Returns the reasons why a host is not what a profile describes; empty if it fits.

    Args:
        profile: The profile to measure under.
        host: A detected machine.
    """
    if profile.detected:
        # Detected profiles are never read from a file: this is the host, perhaps seen with another affinity.
        return []
    return [
        *_cpu_reasons(profile, host),
        *_name_reasons(profile, host),
        *_memory_reasons(profile, host),
        *_accelerator_reasons(profile, host),
    ]


def fitting_profiles(host: Profile) -> tuple[Profile, ...]:
    """Returns the built-in profiles that a host fits."""
    return tuple(profile for profile in builtin_profiles() if not explain_misfit(profile, host))


def require_fit(profile: Profile, host: Profile) -> None:
    """Refuses to measure under a profile that the host does not fit.

    Raises:
        MeasurementInvalidError: The host does not fit; the message lists the reasons.
    """
    reasons = explain_misfit(profile, host)
    if reasons:
        raise MeasurementInvalidError(
            f"this machine does not fit the profile {profile.name}: {'; '.join(reasons)}",
            hint="measure with --profile host, or run this command on that machine",
        )


def _cpu_reasons(profile: Profile, host: Profile) -> list[str]:
    if host.architecture != profile.architecture:
        # Nothing below could be compared across architectures.
        return [f"its architecture is {host.architecture}, not {profile.architecture}"]
    reasons: list[str] = []
    missing = sorted(profile.instruction_sets - host.instruction_sets)
    if missing:
        reasons.append(f"its CPU lacks {', '.join(missing)}")
    surplus = sorted(profile.without_instruction_sets & host.instruction_sets)
    if surplus:
        reasons.append(f"its CPU has {', '.join(surplus)}, which the profile is without")
    if profile.names_machine and host.cores < profile.cores:
        reasons.append(f"it has {host.cores} usable cores, not {profile.cores}")
    return reasons


def _name_reasons(profile: Profile, host: Profile) -> list[str]:
    if profile.match is None:
        return []
    pairs = (
        ("CPU", profile.match.cpu_model, host.cpu_model),
        ("board", profile.match.device_tree, host.board),
    )
    return [
        f"its {what} is {name or 'not known'}, not {profile.title}"
        for what, pattern, name in pairs
        if pattern is not None and not pattern.search(name or "")
    ]


def _memory_reasons(profile: Profile, host: Profile) -> list[str]:
    if profile.memory_bytes is None or host.memory_bytes is None:
        return []
    if host.memory_bytes >= _MEMORY_SHARE * profile.memory_bytes:
        return []
    return [f"it has {_gib(host.memory_bytes)} of memory, the profile {_gib(profile.memory_bytes)}"]


def _accelerator_reasons(profile: Profile, host: Profile) -> list[str]:
    reasons: list[str] = []
    for wanted in profile.accelerators:
        if not host.accelerators:
            reasons.append(f"it has no usable GPU, the profile {wanted.name}")
            continue
        # The first GPU is the one that runtimes take when not told otherwise.
        reasons += _gpu_reasons(wanted, host.accelerators[0])
    pattern = profile.match.accelerator if profile.match else None
    if pattern and host.accelerators and not pattern.search(host.accelerators[0].name):
        reasons.append(f"its GPU is {host.accelerators[0].name}, not {profile.title}")
    return reasons


def _gpu_reasons(wanted: Accelerator, found: Accelerator) -> list[str]:
    reasons: list[str] = []
    if found.compute_capability != wanted.compute_capability:
        # Neither more nor less will do: engines are built for one capability.
        reasons.append(
            f"its GPU {found.name} has compute capability {found.compute_capability}, not {wanted.compute_capability}"
        )
    if (
        wanted.memory_bytes is not None
        and found.memory_bytes is not None
        and found.memory_bytes < _MEMORY_SHARE * wanted.memory_bytes
    ):
        reasons.append(
            f"its GPU {found.name} has {_gib(found.memory_bytes)} of memory, the profile's {_gib(wanted.memory_bytes)}"
        )
    return reasons


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
