"""Versions of packages, of CUDA and of compute capabilities, read and compared by `packaging`."""

from __future__ import annotations

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version


def parse_version(text: str) -> Version:
    """Returns a version; a text that is none comes before every version."""
    try:
        return Version(text)
    except InvalidVersion:
        return Version("0.dev0")


def is_at_least(found: str, least: str) -> bool:
    """Whether a version is not older than another.

    A build of before a release counts as that release: vendors' containers hold `2.10.0a0+...` where the index has
    2.10.0. What follows a `+` does not count.
    """
    return parse_version(parse_version(found).base_version) >= parse_version(least)


def satisfies(found: str, rule: str) -> bool:
    """Whether a version is one that a rule asks for; builds of before a release count as in `is_at_least`.

    Args:
        found: The version.
        rule: As pip writes it, without a name: `>=2.1`, `==1.7.1.116`.

    Raises:
        ValueError: The rule is none.
    """
    return SpecifierSet(rule).contains(parse_version(found).base_version)
