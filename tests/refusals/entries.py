"""What an entry of the table says: the test that follows a refusal's hint, or why none does."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Followed:
    """A test that provokes the refusal, does what its hint says, and finds that it helps."""

    test: str


@dataclass(frozen=True)
class NotFollowed:
    """Why no test does what the hint says."""

    reason: str


Refusals: TypeAlias = Mapping[str, Mapping[str, Followed | NotFollowed]]
"""File -> message -> entry."""

GPU = NotFollowed("needs an NVIDIA GPU, or a fault of one; what is said is tested on stand-ins")
INSTALLS = NotFollowed("the hint installs or updates software of the machine, whose absence is only pretended in tests")
VENDOR = NotFollowed(
    "only a fault inside a vendor's toolchain leads here; what the hint names is built by the contract suite"
)
HUGE = NotFollowed("only a model over 2 GiB leads here")
