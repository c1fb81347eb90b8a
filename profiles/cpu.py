"""The CPU: its name, its instruction sets, its cores."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import reduce
from pathlib import Path

from modelwright.profiles.kernel_files import parse_cpu_list, read_text

# Arm cores carry no name, only a part number: Linux arch/arm64/include/asm/cputype.h.
_ARM_PARTS = {
    "0xd03": "Cortex-A53",
    "0xd05": "Cortex-A55",
    "0xd07": "Cortex-A57",
    "0xd08": "Cortex-A72",
    "0xd0b": "Cortex-A76",
    "0xd0c": "Neoverse-N1",
    "0xd40": "Neoverse-V1",
    "0xd41": "Cortex-A78",
    "0xd42": "Cortex-A78AE",
    "0xd49": "Neoverse-N2",
    "0xd4f": "Neoverse-V2",
}


@dataclass(frozen=True, kw_only=True)
class Cpu:
    """What `/proc/cpuinfo` and the topology say.

    Attributes:
        model: The vendor's name, or that of the Arm core; None when unknown.
        instruction_sets: Those that all CPUs of the machine share.
        cores: Physical cores that this process may use; None when unknown.
        threads: Hardware threads that this process may use; None when unknown.
    """

    model: str | None
    instruction_sets: frozenset[str]
    cores: int | None
    threads: int | None


def read_cpu(root: Path, *, affinity: Collection[int] | None) -> Cpu:
    """Reads the CPU.

    Args:
        root: Of the file system; another than `/` in tests.
        affinity: The CPUs that this process may run on; None for all.
    """
    blocks = _cpuinfo(root)
    feature_lines = [block.get("flags") or block.get("Features") for block in blocks]
    features = [frozenset(line.split()) for line in feature_lines if line]
    cpus = _usable_cpus(root, blocks, affinity)
    return Cpu(
        model=_model(blocks),
        instruction_sets=reduce(frozenset.intersection, features) if features else frozenset(),
        cores=len({_core(root, cpu, blocks) for cpu in cpus}) or None,
        threads=len(cpus) or None,
    )


def _cpuinfo(root: Path) -> list[dict[str, str]]:
    """Returns one mapping per processor; on Arm a last one may describe the board."""
    blocks: list[dict[str, str]] = []
    for paragraph in (read_text(root / "proc/cpuinfo") or "").split("\n\n"):
        pairs = (line.partition(":") for line in paragraph.splitlines())
        block = {key.strip(): value.strip() for key, colon, value in pairs if colon}
        if block:
            blocks.append(block)
    return blocks


def _model(blocks: list[dict[str, str]]) -> str | None:
    for block in blocks:
        if block.get("model name"):
            return block["model name"]
    parts = {block["CPU part"]: None for block in blocks if "CPU part" in block}
    names = [_ARM_PARTS.get(part, f"Arm part {part}") for part in parts]
    return " + ".join(names) or None


def _usable_cpus(root: Path, blocks: list[dict[str, str]], affinity: Collection[int] | None) -> frozenset[int]:
    online = parse_cpu_list(read_text(root / "sys/devices/system/cpu/online") or "")
    listed = frozenset(int(number) for block in blocks if (number := block.get("processor", "")).isdecimal())
    present = online or listed
    if affinity is None:
        return present
    return (present & frozenset(affinity)) or frozenset(affinity)


def _core(root: Path, cpu: int, blocks: list[dict[str, str]]) -> str:
    """Returns what is the same for the hardware threads of one core, and differs between cores."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    # The second name is that of kernels before 5.3. Core numbers alone repeat between packages and clusters.
    for name in ("core_cpus_list", "thread_siblings_list"):
        siblings = read_text(topology / name)
        if siblings:
            return siblings
    for block in blocks:
        if block.get("processor") == str(cpu) and "core id" in block:
            return f"package {block.get('physical id', '0')} core {block['core id']}"
    return f"cpu {cpu}"
