"""Reads a profile from TOML: the schema of the file, and the record made of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.profiles.grid import load_regions
from modelwright.profiles.schema import (
    DEFAULT_GRID_REGION,
    POWER_SCOPES,
    Accelerator,
    Match,
    Power,
    Profile,
)
from modelwright.profiles.tables import Key, Table, check_table, read_toml

_SOURCE = Key(kind="text", hint='say where the figures come from, such as source = "Intel ARK, Core i5-10400"')
_INSTRUCTIONS = {
    "pattern": r"[a-z0-9_]+",
    "such_as": '["avx2", "fma"]',
    "hint": "use the spelling of the flags or Features line in /proc/cpuinfo",
}

SCHEMA = Table(
    entries={
        "schema": Key(kind="integer", choices=(1,), hint="this version reads schema = 1"),
        "name": Key(kind="text", pattern=r"(?!host$)[a-z0-9][a-z0-9._-]*", such_as="raspberry-pi-5 (not host)"),
        "title": Key(kind="text"),
        "grid_region": Key(kind="text", required=False),
        "targets": Key(
            kind="texts",
            pattern=r"[a-z0-9]+(-[a-z0-9]+)+",
            such_as='["ort-int8", "tflite-int8"]',
            hint="`modelwright targets` lists the targets",
        ),
        "cpu": Table(
            required=True,
            entries={
                "architecture": Key(kind="text", choices=("x86_64", "aarch64")),
                "model": Key(kind="text", required=False),
                "instruction_sets": Key(kind="texts", **_INSTRUCTIONS),  # type: ignore[arg-type]
                "without_instruction_sets": Key(kind="texts", required=False, **_INSTRUCTIONS),  # type: ignore[arg-type]
                "cores": Key(kind="integer", at_least=1, at_most=4096),
                "threads": Key(kind="integer", required=False, at_least=1, at_most=8192),
                "source": _SOURCE,
            },
        ),
        "memory": Table(
            required=True,
            entries={
                "bytes": Key(kind="integer", at_least=2**26, such_as="4_294_967_296", hint="bytes, not megabytes"),
                "source": _SOURCE,
            },
        ),
        "accelerators": Table(
            many=True,
            entries={
                "kind": Key(kind="text", choices=("cuda",)),
                "name": Key(kind="text"),
                "compute_capability": Key(kind="text", pattern=r"\d+\.\d+", such_as='"8.9"'),
                "memory_bytes": Key(kind="integer", at_least=2**26, hint="bytes, not megabytes"),
                "source": _SOURCE,
            },
        ),
        "power": Table(
            entries={
                "scope": Key(kind="text", choices=POWER_SCOPES),
                "tdp_w": Key(kind="number", above=0, at_most=100_000, hint="in watts"),
                "tdp_source": _SOURCE,
                "inference_share": Key(kind="number", above=0, at_most=1, hint="0.4 stands for 40 %"),
                "inference_share_source": _SOURCE,
                "idle_w": Key(kind="number", required=False, at_least=0, together_with="idle_source", hint="in watts"),
                "idle_source": Key(kind="text", required=False, together_with="idle_w"),
            },
        ),
        "match": Table(
            entries={
                "cpu_model": Key(kind="regex", required=False),
                "device_tree": Key(kind="regex", required=False),
                "accelerator": Key(kind="regex", required=False),
            },
        ),
    }
)


def read_profile(path: Path) -> Profile:
    """Reads and checks a profile.

    Args:
        path: A TOML file.

    Raises:
        BadInputError: The file cannot be read, or a key is unknown, missing or wrong. The message names
            the file and the dotted key.
    """
    data = read_toml(path, what="profile")
    where = f"profile {path}"
    check_table(data, SCHEMA, where=where)
    _check_relations(data, where=where)

    cpu, memory = data["cpu"], data["memory"]
    accelerators = data.get("accelerators", [])
    return Profile(
        name=data["name"],
        title=data["title"],
        architecture=cpu["architecture"],
        instruction_sets=frozenset(cpu["instruction_sets"]),
        without_instruction_sets=frozenset(cpu.get("without_instruction_sets", [])),
        cores=cpu["cores"],
        threads=cpu.get("threads"),
        memory_bytes=memory["bytes"],
        accelerators=tuple(
            Accelerator(
                kind=item["kind"],
                name=item["name"],
                compute_capability=item["compute_capability"],
                memory_bytes=item["memory_bytes"],
            )
            for item in accelerators
        ),
        power=_power(data["power"]) if "power" in data else None,
        grid_region=data.get("grid_region", DEFAULT_GRID_REGION),
        targets=tuple(data["targets"]),
        match=Match(**data["match"]) if data.get("match") else None,
        sources=MappingProxyType(_sources(data)),
        cpu_model=cpu.get("model"),
    )


def _check_relations(data: Mapping[str, Any], *, where: str) -> None:
    """Checks what spans several keys."""
    cpu = data["cpu"]
    both = set(cpu["instruction_sets"]) & set(cpu.get("without_instruction_sets", []))
    if both:
        raise BadInputError(
            f"{where}: cpu.without_instruction_sets: {', '.join(sorted(both))} is in cpu.instruction_sets too",
            hint="keep each in one of the two lists",
        )
    if cpu.get("threads", cpu["cores"]) < cpu["cores"]:
        raise BadInputError(
            f"{where}: cpu.threads: expected at least cpu.cores ({cpu['cores']}), found {cpu['threads']}",
            hint="cores are physical, threads are what the system shows",
        )
    region = data.get("grid_region", DEFAULT_GRID_REGION)
    if region not in load_regions():
        raise BadInputError(
            f"{where}: grid_region: expected one of {', '.join(load_regions())}, found {region!r}",
            hint="leave it out for the default, " + DEFAULT_GRID_REGION,
        )
    power = data.get("power", {})
    # A share that falls below idle means that the share was taken of another figure than tdp_w.
    if "idle_w" in power and power["tdp_w"] * power["inference_share"] < power["idle_w"]:
        raise BadInputError(
            f"{where}: power.inference_share: expected tdp_w times inference_share to be at least idle_w "
            f"({power['idle_w']:g} W), found {power['tdp_w'] * power['inference_share']:g} W",
            hint="the share counts the idle power in",
        )


def _power(table: Mapping[str, Any]) -> Power:
    sources = [f"tdp_w: {table['tdp_source']}", f"inference_share: {table['inference_share_source']}"]
    if "idle_source" in table:
        sources.append(f"idle_w: {table['idle_source']}")
    return Power(
        tdp_w=float(table["tdp_w"]),
        inference_share=float(table["inference_share"]),
        idle_w=float(table["idle_w"]) if "idle_w" in table else None,
        scope=table["scope"],
        source="; ".join(sources),
    )


def _sources(data: Mapping[str, Any]) -> dict[str, str]:
    sources = {"cpu": data["cpu"]["source"], "memory": data["memory"]["source"]}
    for index, item in enumerate(data.get("accelerators", [])):
        sources[f"accelerators[{index}]"] = item["source"]
    power = data.get("power", {})
    keys = {
        "tdp_source": "power.tdp_w",
        "inference_share_source": "power.inference_share",
        "idle_source": "power.idle_w",
    }
    sources.update({dotted: power[key] for key, dotted in keys.items() if key in power})
    return sources
