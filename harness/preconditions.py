"""What is refused before minutes are spent on it."""

from __future__ import annotations

from collections.abc import Sequence

from modelwright.core.errors import BadInputError, ModelwrightError, ToolchainMissingError
from modelwright.core.nvidia.probe import probe_driver
from modelwright.core.records.exported import ExportedModel
from modelwright.core.records.machine import Machine
from modelwright.harness.run.runner import MeasureSettings
from modelwright.targets.building.build import check_source
from modelwright.targets.table import get_target


def require_gpu_for(settings: MeasureSettings) -> None:
    """Refuses what is asked of a GPU on a machine without one, where it would silently mean nothing.

    Raises:
        ToolchainMissingError: Says why CUDA cannot be used here.
    """
    asked = {
        "--device cuda": settings.device == "cuda",
        "--cuda-graph": settings.cuda_graph,
        "--spin": settings.spin,
        f"--streams {settings.streams}": settings.streams > 1,
    }
    names = [name for name, is_asked in asked.items() if is_asked]
    if not names:
        return
    status = probe_driver()
    if not status.ok:
        raise ToolchainMissingError(
            f"{', '.join(names)}: there is no GPU to use here: {status.reason or 'CUDA cannot be used'}",
            hint=status.hint,
        )


def require_one_buildable(names: Sequence[str], machine: Machine) -> None:
    """Refuses a build of which nothing can come, before the source is exported.

    Raises:
        ToolchainMissingError: Names what each target lacks.
    """
    lacking = {name: get_target(name).check_build(machine) for name in names}
    if not lacking or any(readiness.ok for readiness in lacking.values()):
        return
    reasons = {name: readiness.reason or "no reason given" for name, readiness in lacking.items()}
    hint = next((readiness.hint for readiness in lacking.values() if readiness.hint), None)
    if len(set(reasons.values())) == 1:
        raise ToolchainMissingError(
            f"{', '.join(names)} cannot be built here: {reasons[names[0]]}", hint=hint or "see `modelwright targets`"
        )
    raise ToolchainMissingError(
        "no target can be built here",
        hint=hint or "see `modelwright targets`",
        detail="\n".join(f"{name}: {reason}" for name, reason in reasons.items()),
    )


def find_hindrance(name: str, exported: ExportedModel, host: Machine, *, run: bool) -> ModelwrightError | None:
    """Returns why a target is not even tried: it cannot run here, where it must, or the source lacks what it needs."""
    target = get_target(name)
    readiness = target.check_run(host)
    if run and not readiness.ok:
        return ToolchainMissingError(readiness.reason or "cannot run here", hint=readiness.hint)
    fits = check_source(target, exported)
    return None if fits.ok else BadInputError(f"{name} cannot be built: {fits.reason}", hint=fits.hint)


def require_baseline(name: str, exported: ExportedModel, machine: Machine, host: Machine) -> None:
    """Refuses a baseline that cannot be had: without it no row gets a speed-up.

    Args:
        name: The target that the user asked speed-ups over.
        exported: The verified model.
        machine: That artifacts are for.
        host: This one.

    Raises:
        ToolchainMissingError: It cannot be built or run here.
        BadInputError: The source lacks what it needs.
    """
    error = find_hindrance(name, exported, host, run=True)
    if error is None:
        readiness = get_target(name).check_build(machine)
        if readiness.ok:
            return
        error = ToolchainMissingError(f"{name} cannot be built here: {readiness.reason}", hint=readiness.hint)
    error.message = f"--baseline {name}: {error.message.removeprefix(f'{name} ')}"
    raise error
