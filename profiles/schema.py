"""Records of a hardware profile: what a machine is, what it draws, what can measure it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

from modelwright.core.records.codec import Count, Record, encode
from modelwright.core.records.machine import Gpu, Machine
from modelwright.profiles.technology import HOROWITZ_45NM, Technology

PowerScope = Literal["CPU package", "GPU board", "module", "board"]
_ARITHMETIC = ("amx", "asimd", "avx", "bf16", "f16c", "fma", "fp", "i8mm", "neon", "sme", "sse4", "sve")
"""How the names of instruction sets for arithmetic begin, on x86 and Arm."""

DEFAULT_GRID_REGION = "DE"


class Accelerator(Record):
    """A device beside the CPU.

    Attributes:
        kind: `cuda` is the only kind so far.
        name: As the driver says it.
        compute_capability: CUDA's, such as `8.9`.
        memory_bytes: None where the driver does not tell (shared memory of a Jetson, for one).
        driver_version: Of a detected device, such as `580.65.06`; None in a profile from a file.
        cuda_version: The newest CUDA that the detected driver supports, such as `13.0`.
    """

    kind: str
    name: str
    compute_capability: str
    memory_bytes: Count | None
    driver_version: str | None = None
    cuda_version: str | None = None

    def gpu(self) -> Gpu:
        """Returns the facts that targets care about."""
        return Gpu(
            name=self.name,
            compute_capability=self.compute_capability,
            memory_bytes=self.memory_bytes,
            driver_version=self.driver_version,
            cuda_version=self.cuda_version,
        )


class Power(Record):
    """A nominal power model, for machines without a meter.

    Attributes:
        tdp_w: The vendor's thermal design power or, for boards that have none, the power at full load.
        inference_share: Share of `tdp_w` drawn while inferring, over 0 and at most 1.
        idle_w: Drawn without work; None where nobody publishes it.
        scope: What the figures cover. A target that runs elsewhere (a CPU target under a GPU's figures)
            must not be estimated with them.
        source: Where each figure comes from.
    """

    tdp_w: float
    inference_share: float
    idle_w: float | None
    scope: PowerScope
    source: str

    @property
    def inference_power_w(self) -> float:
        """Power while inferring, idle share included."""
        return self.tdp_w * self.inference_share


class Match(Record):
    """Regular expressions that a host must meet to be the named machine; None means any.

    Attributes:
        cpu_model: Searched in the CPU's model name.
        device_tree: Searched in the board's device-tree model.
        accelerator: Searched in the accelerators' names.
    """

    cpu_model: re.Pattern[str] | None = None
    device_tree: re.Pattern[str] | None = None
    accelerator: re.Pattern[str] | None = None


class Profile(Record):
    """A machine, or a class of machines, that artifacts are built for and measured on.

    Attributes:
        name: What `--profile` takes; `host` for the detected one.
        title: For people.
        architecture: `x86_64` or `aarch64`, in Linux' spelling.
        instruction_sets: That the CPU has, in the spelling of `/proc/cpuinfo`.
        without_instruction_sets: That a host must not have: runtimes would use them, and its numbers
            would be those of another class.
        cores: Physical cores; of the reference part where the profile is a class.
        threads: Hardware threads, if known.
        memory_bytes: Main memory, at least; None where it could not be detected.
        power: None where no figure with a source exists.
        grid_region: Code of a region in `grid.toml`.
        technology: What estimates of energy by bits count with; that of the machine itself nobody publishes.
        match: What makes a host this very machine; None for a class or a detected host.
        sources: From the dotted key of a table or figure to where it comes from.
        virtual_machine: None when unknown.
        cpu_model: The CPU's name; for a class that of the reference part.
        board: The device-tree model, for boards that have one.
        meters: Of `nvml`, `rapl`, `hwmon`, those that are readable now.
        meters_denied: Meters that are there but not readable, each with the reason.
        detected: Whether this is the host, as opposed to a file.
    """

    name: str
    title: str
    architecture: str
    instruction_sets: frozenset[str]
    without_instruction_sets: frozenset[str] = frozenset()
    cores: int
    threads: int | None = None
    memory_bytes: int | None
    accelerators: tuple[Accelerator, ...] = ()
    power: Power | None = None
    grid_region: str = DEFAULT_GRID_REGION
    technology: Technology = HOROWITZ_45NM
    match: Match | None = None
    sources: Mapping[str, str] = {}
    virtual_machine: bool | None = None
    cpu_model: str | None = None
    board: str | None = None
    meters: tuple[str, ...] = ()
    meters_denied: tuple[str, ...] = ()
    detected: bool = False

    @property
    def names_machine(self) -> bool:
        """Whether the profile is one CPU or board, so that its number of cores is a fact, not an example."""
        return self.match is not None and (self.match.cpu_model or self.match.device_tree) is not None

    @property
    def is_class(self) -> bool:
        """Whether the profile stands for any CPU with its instruction sets."""
        return not self.detected and self.match is None and not self.accelerators

    def machine(self) -> Machine:
        """Returns the facts that a target's recipe cares about; of the instruction sets those for arithmetic.

        The others (`tsc_known_freq`, ...) come and go with the hypervisor and decide nothing about an artifact.
        """
        return Machine(
            name=self.name,
            architecture=self.architecture,
            instruction_sets=frozenset(name for name in self.instruction_sets if name.startswith(_ARITHMETIC)),
            cores=self.cores,
            gpu=self.accelerators[0].gpu() if self.accelerators else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns a JSON form for people and programs."""
        data: dict[str, Any] = encode(self)
        if self.power is not None:
            data["power"]["inference_power_w"] = self.power.inference_power_w
        return data
