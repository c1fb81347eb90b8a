"""What is installed, and whether something can be done with it here; if not, why and what would help."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from packaging.requirements import Requirement

from modelwright.core.versions import satisfies


@dataclass(frozen=True, kw_only=True)
class Readiness:
    """Whether something can be done here, and if not, why and what would help."""

    ok: bool
    reason: str | None = None
    hint: str | None = None

    @staticmethod
    def yes(note: str | None = None) -> Readiness:
        return Readiness(ok=True, reason=note)

    @staticmethod
    def no(reason: str, hint: str | None = None) -> Readiness:
        return Readiness(ok=False, reason=reason, hint=hint)


def check_packages(packages: Mapping[str, str], extra: str) -> Readiness:
    """Says which of the packages are absent or too old, and how to install them.

    Args:
        packages: Import name, several of which are written `a|b` -> requirement as pip takes it. What another
            distribution brings than the one that is named there has versions of its own, which say nothing.
        extra: Of this project that brings them.
    """
    for alternatives, required in packages.items():
        how = f"pip install '{required}'  (part of modelwright's extra [{extra}])"
        if not any(_is_installed(name) for name in alternatives.split("|")):
            return Readiness.no(f"package {required} is not installed", how)
        requirement = Requirement(required)
        found = package_versions(requirement.name).get(requirement.name)
        if found is not None and not satisfies(found, str(requirement.specifier)):
            return Readiness.no(f"package {required} is needed, and {found} is installed", how)
    return Readiness.yes()


def _is_installed(import_name: str) -> bool:
    try:
        return importlib.util.find_spec(import_name) is not None
    except (ImportError, ValueError):
        return False


def package_versions(*names: str) -> dict[str, str]:
    """Returns the versions of those of the distributions that are installed."""
    found = {}
    for name in names:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def check_versions(rules: Mapping[str, str]) -> Readiness:
    """Says which of the packages are installed in a version that an artifact cannot use.

    Args:
        rules: Distribution -> versions, as a manifest has them, which may come from anywhere. One that is not installed
            is not asked for: another may do the same, and `check_packages` says when none does.
    """
    for name, rule in rules.items():
        found = package_versions(name).get(name)
        try:
            fits = found is None or satisfies(found, rule)
        except ValueError:
            return Readiness.no(f"its manifest asks for {name} {rule!r}, which is no version", "build it again")
        if not fits:
            return Readiness.no(
                f"it needs {name} {rule}, and {found} is installed",
                f"pip install '{name}{rule}', or build it again with what is here",
            )
    return Readiness.yes()


def find_distributions(packages: Iterable[str]) -> list[str]:
    """Returns the installed distributions that bring packages, given by import name; several are written `a|b`.

    The two mostly have different names: `tensorrt_rtx_bindings` comes with `tensorrt-rtx-cu13-bindings`.
    """
    by_import = importlib.metadata.packages_distributions()
    names = [name for alternatives in packages for name in alternatives.split("|")]
    return sorted({distribution for name in names for distribution in by_import.get(name, ())})


def list_requirements(extra: str) -> list[str]:
    """Returns what an extra of this project brings, as pip takes it; empty for one that there is not."""
    found: dict[str, None] = {}
    for text in importlib.metadata.requires("modelwright") or ():
        requirement = Requirement(text)
        if requirement.marker is None or not requirement.marker.evaluate({"extra": extra}):
            continue
        if requirement.name == "modelwright":
            found |= {inner: None for each in sorted(requirement.extras) for inner in list_requirements(each)}
        else:
            found[f"{requirement.name}{requirement.specifier}"] = None
    return list(found)


def _say_how_to_install(extra: str) -> str:
    return " ".join(["pip install", *(f"'{requirement}'" for requirement in list_requirements(extra))])


def _say_how_to_reinstall(package: str) -> str:
    return f"pip install --force-reinstall {' '.join(find_distributions([package])) or package}"


def require_import(name: str, extra: str) -> Any:
    """Imports a vendor package; absent and broken are told apart.

    Args:
        name: Of the module.
        extra: Of this project that brings it. A module's own name is seldom that of its distribution, and may be
            that of a stranger's.

    Raises:
        ToolchainMissingError: With the original error when the package is there but does not import.
    """
    from modelwright.core.errors import ToolchainMissingError

    package = name.split(".")[0]
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and package == error.name.split(".")[0]:
            raise ToolchainMissingError(
                f"Python package {name} is not installed",
                hint=f"{_say_how_to_install(extra)}  (modelwright's extra [{extra}])",
            ) from error
        raise ToolchainMissingError(
            f"{name} is installed but does not import: there is no Python package {error.name}",
            hint=f"reinstall it with what it needs: {_say_how_to_reinstall(package)}",
            detail=str(error),
        ) from error
    except Exception as error:  # a vendor's import can raise anything: missing libraries, wrong CPU, ...
        raise ToolchainMissingError(
            f"{name} is installed but does not import",
            hint=f"reinstall it: {_say_how_to_reinstall(package)}",
            detail=str(error),
        ) from error
