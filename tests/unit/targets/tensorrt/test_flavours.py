"""What the two flavours differ in, and the rules of versions and compute capabilities."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from modelwright.core.errors import ToolchainMissingError
from modelwright.targets.tensorrt.flavours import (
    CLASSIC,
    RTX,
    check_flavour,
    describe_capabilities,
    find_runnable_capabilities,
    find_version,
    fits_capability,
    fits_version,
    import_flavour,
    make_version_rule,
)


def install(folder: Path, distribution: str, version: str, **modules: str) -> None:
    information = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n")
    for name, code in modules.items():
        (folder / f"{name}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of packages that comes before all others; what a test imports from it is forgotten afterwards."""
    monkeypatch.syspath_prepend(str(tmp_path))
    for name in (*CLASSIC.modules, *RTX.modules):
        monkeypatch.delitem(sys.modules, name, raising=False)
    yield tmp_path
    for name in (*CLASSIC.modules, *RTX.modules):
        sys.modules.pop(name, None)


def test_an_engine_runs_on_the_version_that_built_it() -> None:
    for flavour in (CLASSIC, RTX):
        assert make_version_rule(flavour, "10.13.0.35", version_compatible=False) == "==10.13.0.35"
    assert fits_version("==10.13.0.35", "10.13.0.35")
    assert fits_version("==10.13.0.35", "10.13.0"), "the distribution's version is shorter"
    assert not fits_version("==10.13.0.35", "10.13.1.0")


@pytest.mark.parametrize(
    ("built", "runs", "fits"),
    [
        ("10.13.0.35", "10.14.1.48", True),
        ("10.13.0.35", "11.2.0.1", True),
        ("10.13.0.35", "12.0.0.1", False),
        ("10.13.0.35", "10.12.0.36", False),
        ("11.0.0.1", "11.4.1.2", True),
        ("11.0.0.1", "12.0.0.1", False),
    ],
)
def test_version_compatible_engines_run_on_later_versions(built: str, runs: str, fits: bool) -> None:
    assert fits_version(make_version_rule(CLASSIC, built, version_compatible=True), runs) is fits


def test_engines_of_rtx_never_outlive_their_version() -> None:
    assert make_version_rule(RTX, "1.7.1.116", version_compatible=True) == "==1.7.1.116"


def test_a_rule_that_is_none_fits_nothing() -> None:
    assert not fits_version("whatever", "10.13")


def test_compute_capabilities() -> None:
    own = find_runnable_capabilities(CLASSIC, "none", "8.9")
    assert own == ("8.9",)
    assert fits_capability(own, "8.9")
    assert not fits_capability(own, "8.6")
    ampere = find_runnable_capabilities(CLASSIC, "ampere-plus", "8.9")
    assert [fits_capability(ampere, value) for value in ("7.5", "8.0", "12.1")] == [False, True, True]
    named = find_runnable_capabilities(RTX, "ampere-plus", "8.9")
    assert [fits_capability(named, value) for value in ("8.6", "9.0")] == [True, False]
    assert describe_capabilities(own) == "8.9"
    assert describe_capabilities(ampere) == "8.0 or later"
    assert describe_capabilities(("8.6", "8.9", "12.0")) == "8.6, 8.9 or 12.0"


def test_options_are_those_that_the_flavour_has() -> None:
    classic, rtx = ({option.name for option in flavour.options} for flavour in (CLASSIC, RTX))
    assert classic - rtx == {"version-compatible"}
    assert {"workspace-mb", "optimization-level", "tf32", "hardware-compatible"} <= rtx
    assert next(option for option in RTX.options if option.name == "tf32").default is False


@pytest.mark.parametrize(
    ("distribution", "reason"),
    [
        ("tensorrt", "package tensorrt>=10.12 is needed, and 10.11.0.33 is installed"),
        ("tensorrt-cu12", "TensorRT 10.11.0.33 is too old: 10.12 or later is needed"),
    ],
)
def test_an_old_version_is_refused_by_its_metadata(site: Path, distribution: str, reason: str) -> None:
    install(site, distribution, "10.11.0.33", tensorrt="raise SystemExit('imported')")
    assert find_version(CLASSIC) == "10.11.0.33"
    readiness = check_flavour(CLASSIC, running=True)
    assert readiness.reason == reason
    assert (readiness.hint or "").startswith("pip install 'tensorrt>=10.12'")


def test_version_of_a_package_for_one_cuda(site: Path) -> None:
    install(site, "tensorrt-cu12", "10.13.0.35", tensorrt="")
    assert find_version(CLASSIC) == "10.13.0.35"
    assert check_flavour(CLASSIC, running=True).ok


def test_a_broken_module_says_more_than_an_absent_one(site: Path) -> None:
    (site / "tensorrt.py").write_text("raise ImportError('libnvinfer.so.10: cannot open shared object file')")
    with pytest.raises(ToolchainMissingError, match="installed but does not import") as caught:
        import_flavour(CLASSIC)
    assert "libnvinfer.so.10" in str(caught.value.detail)


def test_an_old_module_is_refused_after_import(site: Path) -> None:
    (site / "tensorrt_rtx_bindings.py").write_text("__version__ = '1.6.1.21'")
    with pytest.raises(ToolchainMissingError, match=r"TensorRT for RTX 1\.6\.1\.21 is too old: 1\.7 or later"):
        import_flavour(RTX)
