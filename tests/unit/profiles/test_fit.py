"""Refusing profiles that the host does not fit, with the reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from msgspec.structs import replace

from modelwright.core.errors import MeasurementInvalidError
from modelwright.profiles import (
    Accelerator,
    Profile,
    detect_host,
    explain_misfit,
    fitting_profiles,
    load_profile,
    power_on,
    require_fit,
)
from modelwright.profiles.gpus import GpuProbe

Tree = Callable[[dict[str, str]], Path]


def gpu(name: str, capability: str, memory_bytes: int | None) -> GpuProbe:
    card = Accelerator(kind="cuda", name=name, compute_capability=capability, memory_bytes=memory_bytes)
    return GpuProbe(accelerators=(card,))


def detect(root: Path, architecture: str = "x86_64", probe: GpuProbe | None = None) -> Profile:
    return detect_host(root, architecture=architecture, find_gpus=lambda: probe or GpuProbe())


@pytest.mark.parametrize(
    ("machine", "architecture", "probe", "expected"),
    [
        ("pi_4", "aarch64", None, {"raspberry-pi-4"}),
        ("pi_5", "aarch64", None, {"raspberry-pi-5"}),
        ("jetson", "aarch64", gpu("Orin", "8.7", 7_600_000_000), {"jetson-orin-nano"}),
        ("jetson", "aarch64", gpu("Orin (nvgpu)", "8.7", None), {"jetson-orin-nano"}),
        ("xeon_amx", "x86_64", None, {"x86-amx"}),
        ("epyc_vm", "x86_64", None, {"x86-avx512-vnni"}),
        ("i5_10400", "x86_64", None, {"desktop-i5-10400", "x86-avx2"}),
        # Sizes as NVML gives them.
        ("epyc_vm", "x86_64", gpu("Tesla T4", "7.5", 15360 * 2**20), {"nvidia-t4", "x86-avx512-vnni"}),
        ("xeon_amx", "x86_64", gpu("NVIDIA A100-SXM4-40GB", "8.0", 40960 * 2**20), {"nvidia-a100", "x86-amx"}),
        ("xeon_amx", "x86_64", gpu("NVIDIA A100 80GB PCIe", "8.0", 81920 * 2**20), {"nvidia-a100", "x86-amx"}),
        ("xeon_amx", "x86_64", gpu("NVIDIA H200", "9.0", 143771 * 2**20), {"nvidia-h200", "x86-amx"}),
        ("epyc_vm", "x86_64", gpu("NVIDIA GeForce RTX 4090", "8.9", 24564 * 2**20), {"rtx-4090", "x86-avx512-vnni"}),
        # Neighbours that must not pass.
        ("epyc_vm", "x86_64", gpu("NVIDIA L4", "8.9", 23034 * 2**20), {"x86-avx512-vnni"}),
        ("epyc_vm", "x86_64", gpu("NVIDIA GeForce RTX 4090 D", "8.9", 24564 * 2**20), {"x86-avx512-vnni"}),
        ("epyc_vm", "x86_64", gpu("NVIDIA H100 80GB HBM3", "9.0", 81559 * 2**20), {"x86-avx512-vnni"}),
        ("epyc_vm", "x86_64", gpu("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "8.0", 4864 * 2**20), {"x86-avx512-vnni"}),
    ],
)
def test_each_machine_fits_its_own_profiles_only(
    tree: Tree,
    machines: SimpleNamespace,
    machine: str,
    architecture: str,
    probe: GpuProbe | None,
    expected: set[str],
) -> None:
    host = detect(tree(getattr(machines, machine)()), architecture, probe)
    assert {profile.name for profile in fitting_profiles(host)} == expected


def test_reasons_say_what_differs(tree: Tree, machines: SimpleNamespace) -> None:
    vm = detect(tree(machines.epyc_vm()))

    assert explain_misfit(load_profile("raspberry-pi-5"), vm)[0] == "its architecture is x86_64, not aarch64"
    assert explain_misfit(load_profile("x86-amx"), vm) == ["its CPU lacks amx_bf16, amx_int8, amx_tile"]
    assert explain_misfit(load_profile("x86-avx2"), vm) == ["its CPU has avx512_vnni, which the profile is without"]
    assert explain_misfit(load_profile("nvidia-t4"), vm) == ["it has no usable GPU, the profile NVIDIA T4"]
    desktop = " ".join(explain_misfit(load_profile("desktop-i5-10400"), vm))
    assert "its CPU is AMD EPYC" in desktop
    assert "it has 2 usable cores, not 6" in desktop


def test_boards_are_told_apart(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.pi_5()), "aarch64")
    (reason,) = explain_misfit(load_profile("raspberry-pi-4"), host)
    assert reason.startswith("its board is Raspberry Pi 5 Model B Rev 1.0, not Raspberry Pi 4")


def test_gpu_reasons(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.epyc_vm()), probe=gpu("NVIDIA A30", "8.0", 24 * 2**30))
    reasons = explain_misfit(load_profile("nvidia-a100"), host)
    assert reasons == [
        "its GPU NVIDIA A30 has 24.0 GiB of memory, the profile's 37.3 GiB",
        "its GPU is NVIDIA A30, not NVIDIA A100",
    ]
    assert "has compute capability 8.0, not 9.0" in explain_misfit(load_profile("nvidia-h200"), host)[0]


def test_memory_may_fall_short_by_a_tenth(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.pi_5()), "aarch64")
    profile = load_profile("raspberry-pi-5")
    assert profile.memory_bytes is not None
    assert not explain_misfit(profile, replace(host, memory_bytes=int(0.91 * profile.memory_bytes)))
    assert explain_misfit(profile, replace(host, memory_bytes=int(0.89 * profile.memory_bytes))) == [
        "it has 1.8 GiB of memory, the profile 2.0 GiB"
    ]
    assert not explain_misfit(profile, replace(host, memory_bytes=None))


def test_a_class_does_not_ask_for_cores(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.x86("Some Xeon", machines.i5_flags, cores=1)))
    assert explain_misfit(load_profile("x86-avx2"), host) == []


def test_refusal_carries_reasons_and_the_way_out(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.epyc_vm()))
    with pytest.raises(MeasurementInvalidError) as caught:
        require_fit(load_profile("raspberry-pi-5"), host)
    assert "does not fit the profile raspberry-pi-5: its architecture is x86_64" in caught.value.message
    assert caught.value.hint == "measure with --profile host, or run this command on that machine"
    assert caught.value.exit_code == 6

    require_fit(load_profile("x86-avx512-vnni"), host)
    require_fit(host, host)


def test_only_a_class_is_scaled_by_cores(tree: Tree, machines: SimpleNamespace) -> None:
    host = detect(tree(machines.epyc_vm()))
    scaled = power_on(load_profile("x86-avx512-vnni"), host)
    assert scaled is not None
    assert scaled.tdp_w == pytest.approx(150 / 20 * 2)
    assert scaled.inference_share == 0.4
    for name in ("desktop-i5-10400", "nvidia-h200", "raspberry-pi-5"):
        profile = load_profile(name)
        assert power_on(profile, host) == profile.power
    assert power_on(replace(load_profile("x86-amx"), power=None), host) is None
