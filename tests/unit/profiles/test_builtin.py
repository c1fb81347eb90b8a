"""The built-in profiles: that all are there, and that their figures are the published ones."""

from __future__ import annotations

import json

import pytest

from modelwright.core.errors import BadInputError
from modelwright.profiles import builtin_names, builtin_profiles, load_profile
from modelwright.profiles.builtin import load_builtin

REQUIRED = {
    "x86-avx2",
    "x86-avx512-vnni",
    "x86-amx",
    "raspberry-pi-4",
    "raspberry-pi-5",
    "jetson-orin-nano",
    "desktop-i5-10400",
    "nvidia-t4",
    "nvidia-a100",
    "nvidia-h200",
    "rtx-4090",
}


def test_the_promised_profiles_are_there() -> None:
    assert set(builtin_names()) == REQUIRED


@pytest.mark.parametrize("name", sorted(REQUIRED))
def test_each_loads_and_gives_a_source_for_every_figure(name: str) -> None:
    profile = load_profile(name)

    assert profile.name == name
    assert profile.power is not None
    figures = ["cpu", "memory", "power.tdp_w", "power.inference_share"]
    figures += ["power.idle_w"] if profile.power.idle_w is not None else []
    figures += [f"accelerators[{index}]" for index in range(len(profile.accelerators))]
    assert set(profile.sources) == set(figures)
    assert all(len(source) > 20 for source in profile.sources.values())
    assert json.loads(json.dumps(profile.to_dict()))["name"] == name
    # Each names its machine, or is a class; a profile that anything would fit proves nothing.
    assert (profile.match is None) == name.startswith("x86-")


@pytest.mark.parametrize(
    ("name", "tdp_w", "cores", "capability"),
    [
        ("desktop-i5-10400", 65, 6, None),
        ("x86-avx512-vnni", 150, 20, None),
        ("x86-amx", 350, 56, None),
        ("jetson-orin-nano", 15, 6, "8.7"),
        ("nvidia-t4", 70, 4, "7.5"),
        ("nvidia-a100", 400, 4, "8.0"),
        ("nvidia-h200", 700, 4, "9.0"),
        ("rtx-4090", 450, 4, "8.9"),
    ],
)
def test_figures_are_those_of_the_data_sheets(name: str, tdp_w: float, cores: int, capability: str | None) -> None:
    profile = load_profile(name)
    assert profile.power is not None
    assert profile.power.tdp_w == tdp_w
    assert profile.cores == cores
    gpu = profile.machine().gpu
    assert (None if gpu is None else gpu.compute_capability) == capability


def test_the_desktop_is_as_required() -> None:
    power = load_profile("desktop-i5-10400").power
    assert power is not None
    assert power.inference_power_w == pytest.approx(26.0)
    assert power.idle_w == 5


def test_dot_products_are_where_the_silicon_has_them() -> None:
    having = {profile.name for profile in builtin_profiles() if profile.machine().has_int8_dot_product}
    assert having == {"x86-avx512-vnni", "x86-amx", "raspberry-pi-5", "jetson-orin-nano"}


def test_an_unknown_name_lists_what_is_close_and_all_names() -> None:
    with pytest.raises(BadInputError) as caught:
        load_profile("Raspberry_Pi_5b")
    assert "did you mean raspberry-pi-5" in caught.value.message
    assert caught.value.hint is not None
    assert all(name in caught.value.hint for name in (*REQUIRED, "host"))

    with pytest.raises(BadInputError, match=r"profile 'zzz' is not known$"):
        load_profile("zzz")


def test_the_host_is_detected_by_its_name() -> None:
    host = load_profile("host")
    assert host.detected
    assert host.name == "host"
    assert host.cores >= 1
    assert not load_builtin("x86-amx").detected
