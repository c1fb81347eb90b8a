"""The lock files say what constraints.txt says, with hashes, of all that the wheel and its extras ask for."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
LOCKS = {
    "requirements.lock": ("ort", "openvino", "tflite", "tune"),
    "requirements-torch.lock": ("ort", "openvino", "tflite", "torch", "tune", "compress"),
}
RENEW = "run .venv/bin/python .ci/lock"


def read_pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def read_lock(name: str) -> dict[str, tuple[Requirement, list[str]]]:
    """Returns canonical name -> requirement and hashes."""
    text = (ROOT / name).read_text().replace("\\\n", " ")
    entries = {}
    for line in text.splitlines():
        if line and not line.startswith("#"):
            head, *hashes = line.split("--hash=")
            requirement = Requirement(head.strip())
            entries[canonicalize_name(requirement.name)] = (requirement, [one.strip() for one in hashes])
    return entries


@pytest.mark.parametrize("name", LOCKS)
def test_versions_are_those_of_the_constraints(name: str) -> None:
    pins = read_pins()
    locked = {package: str(requirement.specifier) for package, (requirement, _) in read_lock(name).items()}
    assert locked == {package: f"=={pins.get(package)}" for package in locked}, RENEW


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_has_hashes(name: str) -> None:
    for package, (_, hashes) in read_lock(name).items():
        assert hashes, package
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", one) for one in hashes), package
        assert len(set(hashes)) == len(hashes), package


def list_asked_for(extra: str) -> set[str]:
    """Returns what an extra asks for, those of other extras of ours included."""
    names: set[str] = set()
    for requirement in map(Requirement, PROJECT["optional-dependencies"][extra]):
        if canonicalize_name(requirement.name) == "modelwright":
            names = names.union(*(list_asked_for(other) for other in requirement.extras))
        elif requirement.marker is None or requirement.marker.evaluate():
            names.add(canonicalize_name(requirement.name))
    return names


@pytest.mark.parametrize(("name", "extras"), LOCKS.items())
def test_all_that_the_wheel_asks_for_is_there_in_a_version_that_it_takes(name: str, extras: tuple[str, ...]) -> None:
    locked = read_lock(name)
    asked = {canonicalize_name(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert asked.union(*map(list_asked_for, extras)) <= locked.keys(), RENEW
    texts = [*PROJECT["dependencies"], *(text for extra in extras for text in PROJECT["optional-dependencies"][extra])]
    for requirement in map(Requirement, texts):
        if canonicalize_name(requirement.name) != "modelwright":
            found, _ = locked[canonicalize_name(requirement.name)]
            assert requirement.specifier.contains(str(found.specifier).removeprefix("==")), requirement


def test_pytorch_comes_with_its_own_lock_alone() -> None:
    assert "torch" not in read_lock("requirements.lock")
    assert read_lock("requirements.lock").keys() < read_lock("requirements-torch.lock").keys()


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("architecture", ["x86_64", "aarch64"])
def test_binary_packages_have_a_wheel_for_each_machine(python: str, architecture: str) -> None:
    """Six machines, six wheels: of a package compiled for each Python and architecture."""
    where = {"python_version": python, "platform_machine": architecture}
    for package in ("numpy", "onnxruntime", "openvino", "ai-edge-litert", "msgspec"):
        requirement, hashes = read_lock("requirements.lock")[package]
        assert len(hashes) == 6, package
        assert requirement.marker is None or Marker(str(requirement.marker)).evaluate(where)
