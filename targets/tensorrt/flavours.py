"""The two TensorRT flavours as records: all that TensorRT and TensorRT for RTX do differently is a field here.

Sources: NVIDIA's "Engine Compatibility" (TensorRT 11.1), "Support Matrix" (TensorRT 11.4, TensorRT-RTX 1.5), "CPU-Only
AOT and TensorRT-RTX Engines", "Engine Compatibility" and "Timing Cache Migration" (TensorRT-RTX), docs.nvidia.com.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from packaging.specifiers import InvalidSpecifier, Specifier, SpecifierSet
from packaging.version import InvalidVersion, Version

from modelwright.core.errors import ToolchainMissingError
from modelwright.core.versions import is_at_least, parse_version
from modelwright.targets.contract import TargetOption
from modelwright.targets.readiness import Readiness, check_packages, require_import

_WORKSPACE = TargetOption(
    name="workspace-mb",
    kind="integer",
    default=None,
    help="Most GPU memory that a kernel may take for scratch, in MB (10^6 bytes); without it the vendor's limit.",
    minimum=1,
    maximum=10**6,
)
_OPTIMIZATION_LEVEL = TargetOption(
    name="optimization-level",
    kind="integer",
    default=3,
    help="How long the builder looks for better kernels; 3 is NVIDIA's default.",
    minimum=0,
    maximum=5,
)
_TF32 = TargetOption(
    name="tf32",
    kind="boolean",
    default=False,
    help="Whether FP32 layers may round their inputs to TF32 (10 bits of mantissa).",
)
_VERSION_COMPATIBLE = TargetOption(
    name="version-compatible",
    kind="boolean",
    default=False,
    help="Whether later versions of TensorRT can run the engine; it can be slower.",
)


@dataclass(frozen=True, kw_only=True)
class Flavour:
    """What the code has to know of a flavour.

    Attributes:
        runtime: As in the targets' names.
        title: For people.
        modules: Import names that give the same API, in the order of trying.
        packages: Import name -> pip requirement, as in `TargetRecord.run_packages`.
        distributions: Names under which its version is installed, the first that is there counts.
        minimum_version: The oldest that is known to work.
        build_extra: The extra of this project that brings what building needs.
        run_extra: The extra that brings what running needs.
        builds_without_gpu: Whether engines are compiled ahead of time for named compute capabilities; else the builder
            times kernels on the GPU that it runs on.
        compute_capabilities: That it can be told to build for; empty where it builds for the GPU it runs on.
        runs_everywhere: Value of `hardware-compatible` -> compute capabilities that such an engine runs on; a text
            such as `>=8.0` is the smallest.
        outlives_version: Whether `version-compatible` exists.
        has_timing_cache: Whether timings of kernels can be kept between builds.
        float_operators: That it has no INT8 kernels for.
        compiles_at_load: Whether kernels are compiled when an engine is loaded, by strategies of its own.
        options: What the user may choose.
    """

    runtime: str
    title: str
    modules: tuple[str, ...]
    packages: Mapping[str, str]
    distributions: tuple[str, ...]
    minimum_version: str
    build_extra: str
    run_extra: str
    builds_without_gpu: bool
    compute_capabilities: tuple[str, ...]
    runs_everywhere: Mapping[str, tuple[str, ...] | str]
    outlives_version: bool
    has_timing_cache: bool
    float_operators: tuple[str, ...]
    compiles_at_load: bool
    options: tuple[TargetOption, ...]


CLASSIC = Flavour(
    runtime="tensorrt",
    title="TensorRT",
    modules=("tensorrt", "tensorrt_bindings"),
    packages={"tensorrt|tensorrt_bindings": "tensorrt>=10.12"},
    distributions=("tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu13-bindings", "tensorrt-cu12-bindings"),
    # Strong typing is complete and weak typing deprecated from here on.
    minimum_version="10.12",
    build_extra="tensorrt",
    run_extra="tensorrt-run",
    builds_without_gpu=False,
    compute_capabilities=(),
    runs_everywhere={"ampere-plus": ">=8.0"},
    outlives_version=True,
    has_timing_cache=True,
    float_operators=(),
    compiles_at_load=False,
    options=(
        _WORKSPACE,
        _OPTIMIZATION_LEVEL,
        _TF32,
        _VERSION_COMPATIBLE,
        TargetOption(
            name="hardware-compatible",
            kind="choice",
            default="none",
            choices=("none", "same-compute-capability", "ampere-plus"),
            help="Which other GPUs the engine is made to run on; the more, the slower it can be.",
        ),
    ),
)

RTX = Flavour(
    runtime="tensorrt-rtx",
    title="TensorRT for RTX",
    modules=("tensorrt_rtx_bindings", "tensorrt_rtx"),
    packages={
        "tensorrt_rtx_libs|tensorrt_rtx": "tensorrt-rtx-cu13-libs>=1.7",
        "tensorrt_rtx_bindings|tensorrt_rtx": "tensorrt-rtx-cu13-bindings>=1.7",
    },
    distributions=(
        "tensorrt-rtx",
        "tensorrt-rtx-cu13-bindings",
        "tensorrt-rtx-cu12-bindings",
        "tensorrt-rtx-cu13",
        "tensorrt-rtx-cu12",
    ),
    # 1.6.1 rejected INT8 convolutions.
    minimum_version="1.7",
    build_extra="tensorrt-rtx",
    run_extra="tensorrt-rtx-run",
    builds_without_gpu=True,
    compute_capabilities=("7.5", "8.0", "8.6", "8.9", "12.0", "12.1"),
    runs_everywhere={"ampere-plus": ("8.0", "8.6", "8.9", "12.0", "12.1")},
    # "TensorRT-RTX engines are not compatible between different releases"
    outlives_version=False,
    # "Timing cache operations are no-ops", and using them asks for a GPU.
    has_timing_cache=False,
    # Accepted in INT8 and computed in float, as the builder's table of layers shows.
    float_operators=("ConvTranspose",),
    compiles_at_load=True,
    options=(
        _WORKSPACE,
        _OPTIMIZATION_LEVEL,
        _TF32,
        TargetOption(
            name="hardware-compatible",
            kind="choice",
            default="none",
            choices=("none", "ampere-plus"),
            help="Which other GPUs the engine is made to run on; the more, the larger it can be.",
        ),
    ),
)


def find_version(flavour: Flavour) -> str | None:
    """Returns the installed version from the package's metadata; imports nothing. None when it is not to be found."""
    for name in flavour.distributions:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def check_flavour(flavour: Flavour, *, running: bool) -> Readiness:
    """Says whether the flavour is installed and recent enough; imports nothing.

    Args:
        flavour: The flavour.
        running: Whether running is meant, not building; decides which extra is named.
    """
    readiness = check_packages(flavour.packages, flavour.run_extra if running else flavour.build_extra)
    if not readiness.ok:
        return readiness
    version = find_version(flavour)
    fault = None if version is None else _explain_version(flavour, version)
    return Readiness.yes() if fault is None else Readiness.no(*fault)


def import_flavour(flavour: Flavour) -> Any:
    """Imports the flavour's Python module.

    Raises:
        ToolchainMissingError: Absent, broken, or too old.
    """
    missing: ToolchainMissingError | None = None
    for name in flavour.modules:
        try:
            module = require_import(name, flavour.run_extra)
        except ToolchainMissingError as error:
            if missing is None or isinstance(missing.__cause__, ModuleNotFoundError):
                missing = error  # one that is installed but broken says more than one that is absent
            continue
        fault = _explain_version(flavour, str(module.__version__))
        if fault is not None:
            raise ToolchainMissingError(fault[0], hint=fault[1])
        return module
    assert missing is not None
    raise missing


def _explain_version(flavour: Flavour, version: str) -> tuple[str, str] | None:
    if is_at_least(version, flavour.minimum_version):
        return None
    wanted = " ".join(f"'{requirement}'" for requirement in flavour.packages.values())
    return (
        f"{flavour.title} {version} is too old: {flavour.minimum_version} or later is needed",
        f"pip install {wanted}",
    )


def make_version_rule(flavour: Flavour, version: str, *, version_compatible: bool) -> str:
    """Returns which versions run an engine that `version` built, as a pip specifier.

    A version-compatible engine runs on later ones of the same major version; one of TensorRT 10 on 11 too.
    """
    if not (flavour.outlives_version and version_compatible):
        return f"=={version}"
    built = parse_version(version)
    return f">={built.public},<{built.major + (2 if built.major == 10 else 1)}"


def fits_version(rule: str, version: str) -> bool:
    """Whether a version is what a rule of `make_version_rule` asks for.

    Where one of two versions is shorter (a distribution's `10.13.0`, the module's `10.13.0.35`), their common part
    decides.
    """
    try:
        clauses, found = SpecifierSet(rule), Version(version)
        return len(clauses) > 0 and all(_fits(clause, found) for clause in clauses)
    except (InvalidSpecifier, InvalidVersion):
        return False


def _fits(clause: Specifier, found: Version) -> bool:
    wanted = Version(clause.version).release
    length = min(len(wanted), len(found.release))
    least, cut = (".".join(map(str, release[:length])) for release in (wanted, found.release))
    return Specifier(f"{clause.operator}{least}").contains(cut)


def find_runnable_capabilities(flavour: Flavour, hardware_compatible: str, built_for: str) -> tuple[str, ...] | str:
    """Returns the compute capabilities that an engine runs on: a list, or a smallest one such as `>=8.0`."""
    return flavour.runs_everywhere.get(hardware_compatible, (built_for,))


def fits_capability(rule: tuple[str, ...] | str, capability: str) -> bool:
    """Whether a GPU's compute capability is what a rule of `find_runnable_capabilities` asks for."""
    if isinstance(rule, str):
        return is_at_least(capability, rule.removeprefix(">="))
    return capability in rule


def describe_capabilities(rule: tuple[str, ...] | str) -> str:
    """Returns a rule as it reads in a sentence: `8.9`, `8.6 or 8.9`, `8.0 or later`."""
    if isinstance(rule, str):
        return f"{rule.removeprefix('>=')} or later"
    return " or ".join([", ".join(rule[:-1]), rule[-1]] if len(rule) > 1 else rule)
