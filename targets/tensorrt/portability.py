"""What an engine needs of the machine that runs it, and whether a machine has that: told before anything is loaded."""

from __future__ import annotations

import importlib.metadata
import re
from collections.abc import Mapping
from typing import Any

from modelwright.core.records.machine import Gpu, Machine
from modelwright.core.versions import parse_version
from modelwright.targets.readiness import Readiness
from modelwright.targets.tensorrt.flavours import (
    Flavour,
    describe_capabilities,
    find_runnable_capabilities,
    find_version,
    fits_capability,
    fits_version,
    make_version_rule,
)


def describe_needs(
    flavour: Flavour,
    version: str,
    gpu: Gpu,
    *,
    hardware_compatible: str,
    version_compatible: bool,
    memory_bytes: int | None,
) -> dict[str, Any]:
    """Returns the manifest's `requires` of an engine.

    Args:
        flavour: That built it.
        version: Of the flavour, in full.
        gpu: That it is for; with the driver where it was built on it.
        hardware_compatible: The option.
        version_compatible: The option.
        memory_bytes: That it takes on the GPU; None when that is unknown.
    """
    rule = find_runnable_capabilities(flavour, hardware_compatible, gpu.compute_capability)
    return {
        "packages": {flavour.runtime: make_version_rule(flavour, version, version_compatible=version_compatible)},
        "gpu": {
            "flavour": flavour.runtime,
            "name": gpu.name,
            "compute_capability": gpu.compute_capability,
            "runs_on": rule if isinstance(rule, str) else list(rule),
            "hardware_compatible": hardware_compatible,
            "driver_version": gpu.driver_version,
            "cuda_version": gpu.cuda_version,
            "memory_bytes": memory_bytes,
        },
    }


def check_needs(flavour: Flavour, target: str, requires: Mapping[str, Any], machine: Machine) -> Readiness:
    """Says which of version, GPU and memory does not fit, all of them, and how to rebuild.

    Args:
        flavour: Of the target.
        target: Its name.
        requires: The manifest's.
        machine: That is to run it.
    """
    rebuild = f"build it again for this machine: modelwright build ... --target {target} --profile host"
    needs = requires.get("gpu")
    rule = requires.get("packages", {}).get(flavour.runtime) if isinstance(requires.get("packages"), dict) else None
    if not isinstance(needs, dict) or not isinstance(rule, str) or _read_capabilities(needs) is None:
        return Readiness.no("its manifest does not say which GPU and version it needs", rebuild)
    faults = [_check_version(flavour, rule), *_check_gpu(needs, machine)]
    found = [fault for fault in faults if fault is not None]
    if found:
        return Readiness.no("; ".join(found), rebuild if machine.gpu is not None else _elsewhere(needs))
    return Readiness.yes(_note_differences(flavour, needs, machine))


def _elsewhere(needs: Mapping[str, Any]) -> str:
    return (
        f"run it on a machine with a GPU of compute capability {describe_capabilities(_read_capabilities(needs) or ())}"
    )


def _check_version(flavour: Flavour, rule: str) -> str | None:
    installed = find_version(flavour)
    if installed is None or fits_version(rule, installed):
        return None
    return f"it needs {flavour.title} {rule.removeprefix('==')}, and {installed} is installed"


def _check_gpu(needs: Mapping[str, Any], machine: Machine) -> list[str | None]:
    gpu = machine.gpu
    rule = _read_capabilities(needs) or ()
    if gpu is None:
        return [f"it was built for {needs.get('name')}, and this machine has no NVIDIA GPU"]
    faults: list[str | None] = []
    if not fits_capability(rule, gpu.compute_capability):
        faults.append(
            f"it was built for {needs.get('name')} and runs on compute capability {describe_capabilities(rule)}; "
            f"this {gpu.name} has {gpu.compute_capability}"
        )
    memory_bytes = needs.get("memory_bytes")
    if isinstance(memory_bytes, int) and gpu.memory_bytes is not None and memory_bytes > gpu.memory_bytes:
        faults.append(
            f"it takes {memory_bytes / 1e6:,.0f} MB of GPU memory; this {gpu.name} has {gpu.memory_bytes / 1e6:,.0f} MB"
        )
    return faults


def _read_capabilities(needs: Mapping[str, Any]) -> tuple[str, ...] | str | None:
    """Returns the rule of a manifest, which may have been edited; None when it is none."""
    rule = needs.get("runs_on")
    if isinstance(rule, str) and re.fullmatch(r">=\d+\.\d+", rule):
        return rule
    if isinstance(rule, list) and rule and all(isinstance(value, str) for value in rule):
        return tuple(rule)
    return None


def _note_differences(flavour: Flavour, needs: Mapping[str, Any], machine: Machine) -> str | None:
    """Returns what differs without being in the way."""
    assert machine.gpu is not None
    gpu, notes = machine.gpu, []
    if gpu.name != needs.get("name"):
        notes.append(f"it was built for {needs.get('name')}; {_describe_risk(flavour, needs, gpu.name)}")
    older = needs.get("cuda_version")
    if isinstance(older, str) and gpu.cuda_version and parse_version(gpu.cuda_version) < parse_version(older):
        notes.append(f"it was built with a driver for CUDA {older}; this one's is for {gpu.cuda_version}")
    return "; ".join(notes) or None


def _describe_risk(flavour: Flavour, needs: Mapping[str, Any], name: str) -> str:
    """Returns what to expect of an engine on another model of GPU with a compute capability that it is for."""
    if flavour.compiles_at_load:
        return f"its kernels are compiled for this {name} when it is loaded"
    if needs.get("hardware_compatible", "none") != "none":
        return f"on this {name} it runs, maybe slower than one of its own"
    return (
        f"on this {name} NVIDIA warns of lost speed and of errors: build one for it, or one for all of this compute "
        "capability with --option hardware-compatible=same-compute-capability"
    )


def check_driver(flavour: Flavour, cuda_version: str | None) -> Readiness:
    """Says whether a driver is recent enough for the CUDA that the installed packages were made for.

    A driver runs what was made for its own major version of CUDA and for older ones.

    Args:
        flavour: Whose packages.
        cuda_version: The newest that the driver supports; None when it does not tell.
    """
    wanted = _find_cuda_major(flavour)
    if wanted is None or cuda_version is None or parse_version(cuda_version).major >= wanted:
        return Readiness.yes()
    return Readiness.no(
        f"the NVIDIA driver supports CUDA {cuda_version}, and the installed {flavour.title} is made for CUDA {wanted}",
        f"update the NVIDIA driver, or install the packages whose name ends in -cu{parse_version(cuda_version).major}",
    )


def _find_cuda_major(flavour: Flavour) -> int | None:
    """Returns the major version of CUDA in the names of the installed packages; the smallest of several."""
    found = []
    for name in flavour.distributions:
        match = re.search(r"-cu(\d+)", name)
        if match is None:
            continue
        try:
            importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        found.append(int(match.group(1)))
    return min(found, default=None)
