"""Recorded machines: the few files of /proc and /sys that detection reads, written into a folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

XEON_AMX_FLAGS = (
    "fpu sse sse2 avx avx2 fma f16c avx512f avx512dq avx512cd avx512bw avx512vl avx512_vnni avx_vnni "
    "avx512_bf16 amx_bf16 amx_tile amx_int8"
)
EPYC_FLAGS = (
    "fpu sse sse2 hypervisor avx avx2 fma f16c avx512f avx512dq avx512cd avx512bw avx512vl avx512_bf16 avx512_vnni"
)
I5_FLAGS = "fpu sse sse2 avx avx2 fma f16c"
A72_FEATURES = "fp asimd evtstrm crc32 cpuid"
A76_FEATURES = "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc dcpop asimddp"

Tree = Callable[[dict[str, str]], Path]


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Returns a function that writes files into a new root."""

    def write(files: dict[str, str]) -> Path:
        root = tmp_path / "root"
        for name, text in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return root

    return write


def x86(
    model: str, flags: str, *, cores: int, threads_per_core: int = 1, packages: int = 1, memory_gib: float = 16
) -> dict[str, str]:
    """Numbers threads as Linux does on x86: all first threads, then all second ones."""
    files = {"proc/meminfo": meminfo(memory_gib)}
    total = cores * packages
    count = total * threads_per_core
    paragraphs = []
    for cpu in range(count):
        siblings = ",".join(str(cpu % total + total * thread) for thread in range(threads_per_core))
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = siblings + "\n"
        paragraphs.append(f"processor\t: {cpu}\nmodel name\t: {model}\nflags\t\t: {flags}\n")
    files["proc/cpuinfo"] = "\n".join(paragraphs)
    files["sys/devices/system/cpu/online"] = f"0-{count - 1}\n"
    return files


def arm(board: str, features: str, part: str, *, cores: int, memory_gib: float) -> dict[str, str]:
    paragraphs = [f"processor\t: {cpu}\nFeatures\t: {features}\nCPU part\t: {part}\n" for cpu in range(cores)]
    files = {
        "proc/cpuinfo": "\n".join([*paragraphs, f"Revision\t: c04170\nModel\t\t: {board}\n"]),
        "proc/meminfo": meminfo(memory_gib),
        "proc/device-tree/model": board + "\0",
        "sys/devices/system/cpu/online": f"0-{cores - 1}\n",
    }
    for cpu in range(cores):
        files[f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list"] = f"{cpu}\n"
    return files


def meminfo(gib: float) -> str:
    return f"MemTotal:       {int(gib * 2**20)} kB\nMemFree:        1000 kB\n"


def pi_4() -> dict[str, str]:
    return arm("Raspberry Pi 4 Model B Rev 1.4", A72_FEATURES, "0xd08", cores=4, memory_gib=3.7)


def pi_5() -> dict[str, str]:
    return arm("Raspberry Pi 5 Model B Rev 1.0", A76_FEATURES, "0xd0b", cores=4, memory_gib=7.8)


def jetson() -> dict[str, str]:
    files = arm(
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super",
        A76_FEATURES + " uscat ilrcpc flagm paca pacg",
        "0xd42",
        cores=6,
        memory_gib=7.4,
    )
    hwmon = "sys/class/hwmon/hwmon1/"
    return files | {
        hwmon + "name": "ina3221\n",
        hwmon + "in1_input": "5072\n",
        hwmon + "curr1_input": "912\n",
    }


def xeon_amx() -> dict[str, str]:
    files = x86(
        "Intel(R) Xeon(R) Platinum 8480+", XEON_AMX_FLAGS, cores=56, threads_per_core=2, packages=2, memory_gib=503
    )
    return files | {
        "sys/class/dmi/id/product_name": "PowerEdge R760\n",
        "sys/class/dmi/id/sys_vendor": "Dell Inc.\n",
        "sys/class/powercap/intel-rapl:0/energy_uj": "123456789\n",
    }


def epyc_vm() -> dict[str, str]:
    files = x86("AMD EPYC", EPYC_FLAGS, cores=2, memory_gib=23.5)
    return files | {"sys/class/dmi/id/product_name": "KVM Virtual Machine\n"}


def i5_10400() -> dict[str, str]:
    files = x86("Intel(R) Core(TM) i5-10400 CPU @ 2.90GHz", I5_FLAGS, cores=6, threads_per_core=2, memory_gib=15.5)
    return files | {"sys/class/dmi/id/product_name": "OptiPlex 7080\n"}


@pytest.fixture
def machines() -> SimpleNamespace:
    """Returns the recorded machines, each a function that returns its files."""
    return SimpleNamespace(
        x86=x86,
        meminfo=meminfo,
        pi_4=pi_4,
        pi_5=pi_5,
        jetson=jetson,
        xeon_amx=xeon_amx,
        epyc_vm=epyc_vm,
        i5_10400=i5_10400,
        i5_flags=I5_FLAGS,
    )
