"""Detection, on recorded machines."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from modelwright.profiles import Accelerator, Profile, detect_host
from modelwright.profiles.gpus import GpuProbe

Tree = Callable[[dict[str, str]], Path]


def detect(root: Path, architecture: str = "x86_64", *, gpus: GpuProbe | None = None, **more: object) -> Profile:
    return detect_host(root, architecture=architecture, find_gpus=lambda: gpus or GpuProbe(), **more)  # type: ignore[arg-type]


def test_raspberry_pi_4(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.pi_4()), "aarch64")
    assert host.board == "Raspberry Pi 4 Model B Rev 1.4"
    assert host.cpu_model == "Cortex-A72"
    assert (host.cores, host.threads) == (4, 4)
    assert "asimd" in host.instruction_sets
    assert not host.machine().has_int8_dot_product
    assert host.virtual_machine is False
    assert host.power is not None
    assert (host.power.tdp_w, host.power.scope) == (6.1, "board")


def test_raspberry_pi_5(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.pi_5()), "arm64")
    assert host.architecture == "aarch64"
    assert host.machine().has_int8_dot_product
    assert host.memory_bytes == int(7.8 * 2**20) * 1024
    assert host.power is not None
    assert host.power.tdp_w == 9.8
    assert "scaled" not in host.power.source


def test_xeon_counts_cores_of_both_packages_and_sees_rapl(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.xeon_amx()))
    assert (host.cores, host.threads) == (112, 224)
    assert host.virtual_machine is False
    assert host.meters == ("rapl",)
    assert host.meters_denied == ()
    assert host.power is not None
    assert host.power.tdp_w == pytest.approx(700)
    assert "x86-amx" in host.power.source


def test_a_virtual_machine_gets_the_class_figure_and_the_source_says_so(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.epyc_vm()))
    assert host.virtual_machine is True
    assert host.cpu_model == "AMD EPYC"
    assert (host.meters, host.meters_denied) == ((), ())
    assert host.power is not None
    assert host.power.tdp_w == pytest.approx(15)
    assert host.power.inference_power_w == pytest.approx(6)
    assert "nominal figure of the class x86-avx512-vnni, not of this CPU" in host.power.source
    assert "Intel Xeon Gold 6248 (150 W / 20 cores) to 2 cores" in host.power.source


def test_a_desktop_gets_the_figure_of_its_own_cpu(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.i5_10400()))
    assert (host.cores, host.threads) == (6, 12)
    assert host.power is not None
    assert (host.power.tdp_w, host.power.idle_w) == (65, 5)
    assert host.virtual_machine is False


def test_a_cpu_outside_all_classes_gets_no_power(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.x86("12th Gen Intel(R) Core(TM)", machines.i5_flags + " avx_vnni", cores=8)))
    assert host.power is None


def test_jetson_reads_its_current_sensor_and_takes_the_gpu(tree: Tree, machines: SimpleNamespace) -> None:
    orin = Accelerator(kind="cuda", name="Orin", compute_capability="8.7", memory_bytes=None)
    host = detect(tree(machines.jetson()), "aarch64", gpus=GpuProbe(accelerators=(orin,)))
    assert host.meters == ("hwmon",)
    assert host.cpu_model == "Cortex-A78AE"
    gpu = host.machine().gpu
    assert gpu is not None
    assert gpu.compute_capability == "8.7"
    assert host.power is not None
    assert host.power.scope == "module"


def test_gpu_and_its_meter(tree: Tree, machines: SimpleNamespace) -> None:
    card = Accelerator(kind="cuda", name="NVIDIA GeForce RTX 4090", compute_capability="8.9", memory_bytes=2**34)
    probe = GpuProbe(accelerators=(card,), has_power_meter=True)
    host = detect(tree(machines.i5_10400()), gpus=probe)
    assert host.meters == ("nvml",)
    # What the CPU draws, not the card.
    assert host.power is not None
    assert host.power.scope == "CPU package"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("5123456", ("hwmon",)), ("not a number", ())],
)
def test_hwmon_counts_only_if_it_can_be_read(
    tree: Tree, machines: SimpleNamespace, text: str, expected: tuple[str, ...]
) -> None:
    files = machines.i5_10400() | {
        "sys/class/hwmon/hwmon0/name": "ina226\n",
        "sys/class/hwmon/hwmon0/power1_input": text,
    }
    host = detect(tree(files))
    assert host.meters == expected
    assert len(host.meters_denied) == (not expected)


@pytest.mark.parametrize("name", ["amdgpu", "BAT0", "nvme", "coretemp", "acpitz", "mlx5"])
def test_sensors_of_other_devices_are_no_meter(tree: Tree, machines: SimpleNamespace, name: str) -> None:
    sensor = "temp1_input" if name == "coretemp" else "power1_input"
    folder = "sys/class/hwmon/hwmon0/"
    host = detect(tree(machines.i5_10400() | {folder + "name": name, folder + sensor: "5000000"}))
    assert host.meters == ()
    assert host.meters_denied == ()


def test_a_meter_for_root_only_is_told_apart_from_none(
    tree: Tree, machines: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(machines.xeon_amx())
    original = Path.read_text

    def refuse(path: Path, *args: object, **kwargs: object) -> str:
        # Tests may run as root, whom no file mode stops.
        if path.name == "energy_uj":
            raise PermissionError(13, "Permission denied")
        return original(path, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(Path, "read_text", refuse)
    host = detect(root)
    assert host.meters == ()
    assert host.meters_denied == ("rapl: present but root-only",)


def test_affinity_narrows_cores_and_threads(tree: Tree, machines: SimpleNamespace) -> None:
    root = tree(machines.i5_10400())
    # Threads 0 and 6 are one core.
    host = detect(root, affinity={0, 6, 1})
    assert (host.cores, host.threads) == (2, 3)


@pytest.mark.parametrize(
    ("files", "cores", "threads", "memory_gib"),
    [
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000"}, 6, 12, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "350000 100000"}, 3, 3, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000"}, 1, 1, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "800000 100000"}, 6, 8, None),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": str(2**31)}, 6, 12, 2),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max"}, 6, 12, None),
        # The limit is set above the own group.
        ({"proc/self/cgroup": "0::/a/b\n", "sys/fs/cgroup/a/cpu.max": "200000 100000"}, 2, 2, None),
        # Outside the namespace, and a container whose path is the host's.
        ({"proc/self/cgroup": "0::/../x\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2, 2, None),
        ({"proc/self/cgroup": "0::/docker/x\n", "sys/fs/cgroup/cpu.max": "200000 100000"}, 2, 2, None),
        (
            {
                "proc/self/cgroup": "5:cpu,cpuacct:/d\n4:memory:/d\n0::/\n",
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_quota_us": "400000",
                "sys/fs/cgroup/cpu,cpuacct/d/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/d/memory.limit_in_bytes": str(3 * 2**30),
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            *(4, 4, 3),
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/\n4:memory:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712",
            },
            *(6, 12, None),
        ),
        ({"proc/self/cgroup": "garbage\n::\n0::/\n", "sys/fs/cgroup/cpu.max": "x y"}, 6, 12, None),
    ],
)
def test_control_groups_limit(
    tree: Tree, machines: SimpleNamespace, files: dict[str, str], cores: int, threads: int, memory_gib: int | None
) -> None:
    host = detect(tree(machines.i5_10400() | files))
    assert (host.cores, host.threads) == (cores, threads)
    assert host.memory_bytes == (memory_gib * 2**30 if memory_gib else int(15.5 * 2**30))


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"sys/class/dmi/id/product_name": "c7g.xlarge", "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, True),
        ({"sys/class/dmi/id/product_name": "c7g.metal", "sys/class/dmi/id/sys_vendor": "Amazon EC2"}, False),
        ({"sys/class/dmi/id/product_name": "ThinkSystem HR330A"}, False),
        ({"proc/device-tree/model": "linux,dummy-virt\0"}, True),
        ({"proc/device-tree/compatible": "linux,dummy-virt\0"}, True),
        ({"proc/device-tree/hypervisor/compatible": "xen,xen"}, True),
        ({}, None),
    ],
)
def test_virtual_or_not_on_arm(tree: Tree, files: dict[str, str], expected: bool | None) -> None:
    root = tree(files | {"proc/cpuinfo": "processor\t: 0\nFeatures\t: fp asimd\n"})
    assert detect(root, "aarch64").virtual_machine is expected


def test_an_empty_tree_crashes_nothing_and_invents_nothing(tmp_path: Path) -> None:
    host = detect(tmp_path)
    assert host.instruction_sets == frozenset()
    assert host.memory_bytes is None
    assert host.power is None
    assert host.cpu_model is None
    assert host.virtual_machine is None
    assert (host.cores, host.threads) == (1, 1)


def test_without_a_topology_the_processors_of_cpuinfo_count(tree: Tree) -> None:
    lines = "".join(
        f"processor : {cpu}\nphysical id : {cpu // 4}\ncore id : {cpu % 2}\nflags : sse2\n\n" for cpu in range(8)
    )
    host = detect(tree({"proc/cpuinfo": lines}))
    assert (host.cores, host.threads) == (4, 8)


def test_instruction_sets_are_those_that_all_processors_share(tree: Tree) -> None:
    text = "processor : 0\nFeatures : fp asimd asimddp\n\nprocessor : 1\nFeatures : fp asimd\n"
    assert detect(tree({"proc/cpuinfo": text}), "aarch64").instruction_sets == {"fp", "asimd"}


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="the system has no scheduling affinity")
def test_this_machine_stays_within_its_affinity() -> None:
    host = detect_host()
    assert host.threads is not None
    assert 1 <= host.cores <= host.threads <= len(os.sched_getaffinity(0))
