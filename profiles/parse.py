"""Reads a profile from TOML: what the file may hold, and the record made of it."""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal

from msgspec import Meta

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_toml
from modelwright.core.records.codec import Record, Text, decode
from modelwright.profiles.grid import load_regions
from modelwright.profiles.schema import DEFAULT_GRID_REGION, Accelerator, Match, Power, PowerScope, Profile
from modelwright.profiles.technology import HOROWITZ_45NM, Technology

_Source = Annotated[
    Text, Meta(extra={"hint": 'say where the figures come from, such as source = "Intel ARK, Core i5-10400"'})
]
_InstructionSets = Annotated[
    frozenset[Annotated[str, Meta(pattern=r"^[a-z0-9_]+\Z")]],
    Meta(
        examples=['["avx2", "fma"]'],
        extra={"hint": "use the spelling of the flags or Features line in /proc/cpuinfo"},
    ),
]
_Bytes = Annotated[int, Meta(ge=2**26, le=2**63 - 1, extra={"hint": "bytes, not megabytes"})]
_WATTS = {"hint": "in watts"}


class _Cpu(Record):
    architecture: Literal["x86_64", "aarch64"]
    model: Text | None = None
    instruction_sets: _InstructionSets
    without_instruction_sets: _InstructionSets = frozenset()
    cores: Annotated[int, Meta(ge=1, le=4096)]
    threads: Annotated[int, Meta(ge=1, le=8192)] | None = None
    source: _Source


class _Memory(Record):
    bytes: _Bytes
    source: _Source


class _Accelerator(Record):
    kind: Literal["cuda"]
    name: Text
    compute_capability: Annotated[str, Meta(pattern=r"^\d+\.\d+\Z", examples=['"8.9"'])]
    memory_bytes: _Bytes
    source: _Source


class _Power(Record):
    scope: PowerScope
    tdp_w: Annotated[float, Meta(gt=0, le=100_000, extra=_WATTS)]
    tdp_source: _Source
    inference_share: Annotated[float, Meta(gt=0, le=1, extra={"hint": "0.4 stands for 40 %"})]
    inference_share_source: _Source
    idle_w: Annotated[float, Meta(ge=0, le=100_000, extra=_WATTS)] | None = None
    idle_source: Text | None = None


class _ProfileFile(Record):
    schema: Annotated[Literal[1], Meta(extra={"hint": "this version reads schema = 1"})]
    name: Annotated[str, Meta(pattern=r"^(?!host\Z)[a-z0-9][a-z0-9._-]*\Z", examples=["raspberry-pi-5 (not host)"])]
    title: Text
    grid_region: Text = DEFAULT_GRID_REGION
    cpu: Annotated[_Cpu, Meta(extra={"hint": "add a table [cpu]"})]
    memory: Annotated[_Memory, Meta(extra={"hint": "add a table [memory]"})]
    accelerators: Annotated[tuple[_Accelerator, ...], Meta(extra={"hint": "write each as [[accelerators]]"})] = ()
    power: _Power | None = None
    technology: Technology = HOROWITZ_45NM
    match: Match = Match()


def read_profile(path: Path) -> Profile:
    """Reads and checks a profile.

    Args:
        path: A TOML file.

    Raises:
        BadInputError: The file cannot be read, or a key is unknown, missing or wrong. The message names
            the file and the dotted key.
    """
    data = read_toml(path, "profile")
    where = f"profile {path}"
    if "targets" in data:
        raise BadInputError(
            f"{where}: targets: a profile describes a machine; the targets know which machines they suit",
            hint="take the key out, and name targets with --target where not all that suit are wanted",
        )
    file = decode(_ProfileFile, data, where=where)
    _check_relations(file, where=where)
    return Profile(
        name=file.name,
        title=file.title,
        architecture=file.cpu.architecture,
        instruction_sets=file.cpu.instruction_sets,
        without_instruction_sets=file.cpu.without_instruction_sets,
        cores=file.cpu.cores,
        threads=file.cpu.threads,
        memory_bytes=file.memory.bytes,
        accelerators=tuple(
            Accelerator(
                kind=item.kind,
                name=item.name,
                compute_capability=item.compute_capability,
                memory_bytes=item.memory_bytes,
            )
            for item in file.accelerators
        ),
        power=None if file.power is None else _describe_power(file.power),
        grid_region=file.grid_region,
        technology=file.technology,
        match=file.match if file.match != Match() else None,
        sources=MappingProxyType(_list_sources(file)),
        cpu_model=file.cpu.model,
    )


def _check_relations(file: _ProfileFile, *, where: str) -> None:
    """Checks what spans several keys."""
    cpu, power = file.cpu, file.power
    both = cpu.instruction_sets & cpu.without_instruction_sets
    if both:
        raise BadInputError(
            f"{where}: cpu.without_instruction_sets: {', '.join(sorted(both))} is in cpu.instruction_sets too",
            hint="keep each in one of the two lists",
        )
    if cpu.threads is not None and cpu.threads < cpu.cores:
        raise BadInputError(
            f"{where}: cpu.threads: expected at least cpu.cores ({cpu.cores}), found {cpu.threads}",
            hint="cores are physical, threads are what the system shows",
        )
    if file.grid_region not in load_regions():
        raise BadInputError(
            f"{where}: grid_region: expected one of {', '.join(load_regions())}, found {file.grid_region!r}",
            hint="leave it out for the default, " + DEFAULT_GRID_REGION,
        )
    if power is None:
        return
    if (power.idle_w is None) != (power.idle_source is None):
        there, absent = ("idle_w", "idle_source") if power.idle_source is None else ("idle_source", "idle_w")
        raise BadInputError(
            f"{where}: power.{absent}: missing; power.{there} needs it", hint=f"add {absent}, or drop {there}"
        )
    # A share that falls below idle means that the share was taken of another figure than tdp_w.
    if power.idle_w is not None and power.tdp_w * power.inference_share < power.idle_w:
        raise BadInputError(
            f"{where}: power.inference_share: expected tdp_w times inference_share to be at least idle_w "
            f"({power.idle_w:g} W), found {power.tdp_w * power.inference_share:g} W",
            hint="the share counts the idle power in",
        )


def _describe_power(power: _Power) -> Power:
    sources = {"tdp_w": power.tdp_source, "inference_share": power.inference_share_source, "idle_w": power.idle_source}
    return Power(
        tdp_w=power.tdp_w,
        inference_share=power.inference_share,
        idle_w=power.idle_w,
        scope=power.scope,
        source="; ".join(f"{figure}: {source}" for figure, source in sources.items() if source is not None),
    )


def _list_sources(file: _ProfileFile) -> dict[str, str]:
    sources: dict[str, str | None] = {"cpu": file.cpu.source, "memory": file.memory.source}
    sources |= {f"accelerators[{index}]": item.source for index, item in enumerate(file.accelerators)}
    if file.power is not None:
        sources |= {
            "power.tdp_w": file.power.tdp_source,
            "power.inference_share": file.power.inference_share_source,
            "power.idle_w": file.power.idle_source,
        }
    return {key: source for key, source in sources.items() if source is not None}
