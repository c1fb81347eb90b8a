"""The facts about a machine that decide how an artifact is built and whether it can run."""

from __future__ import annotations

import platform

from modelwright.core.records.codec import Count, Line, Record

HOST = "host"
"""The name of the profile of this very machine, as detected; no other profile has it."""


X86_DOT_PRODUCTS = frozenset({"avx512_vnni", "avx_vnni", "avx_vnni_int8", "amx_int8"})
"""Instruction sets that add u8 x s8 products in 32 bits."""
_ARM_DOT_PRODUCTS = frozenset({"asimddp", "i8mm"})


class Gpu(Record):
    """The facts about an NVIDIA GPU that decide what is built for it and what runs on it.

    Attributes:
        name: As the driver says it: `NVIDIA GeForce RTX 4090`.
        compute_capability: CUDA's, such as `8.9`.
        memory_bytes: None where the driver does not tell.
        driver_version: Such as `580.65.06`; None for a machine that is only described.
        cuda_version: The newest CUDA that the driver supports, such as `13.0`; None likewise.
    """

    name: Line
    compute_capability: Line
    memory_bytes: Count | None = None
    driver_version: Line | None = None
    cuda_version: Line | None = None


class Machine(Record):
    """The machine an artifact is for, as far as a target's recipe cares.

    Attributes:
        name: The profile it comes from, `HOST` for a detected one.
        architecture: `x86_64` or `aarch64`, as `platform.machine()` says on Linux.
        instruction_sets: CPU features in Linux' spelling: `avx2`, `avx512_vnni`, `avx_vnni`, `avx512_bf16`,
            `amx_int8`, `amx_bf16`, `asimd`, `asimddp`, `i8mm`, `bf16`.
        cores: Physical cores.
        gpu: The first NVIDIA GPU; None without one.
    """

    name: Line
    architecture: Line
    instruction_sets: frozenset[Line]
    cores: Count
    gpu: Gpu | None = None

    @property
    def has_int8_dot_product(self) -> bool:
        """Whether u8 x s8 products accumulate in 32 bits (VNNI, AMX, Arm dot product): no saturation."""
        return bool(self.instruction_sets & (X86_DOT_PRODUCTS | _ARM_DOT_PRODUCTS))

    @property
    def sums_exactly(self) -> bool:
        """Whether 8-bit products are summed exactly, whatever the weights.

        By dot products; and on Arm without them, where sums of two products fit the 16 bits that they are widened to:
        2 * 128 * 127 < 2**15, as -128 is never a weight. AVX2 and AVX-512 without VNNI add pairs of u8 x s8 products
        by VPMADDUBSW, which saturates.
        """
        return self.has_int8_dot_product or self.architecture == "aarch64"

    @property
    def is_here(self) -> bool:
        """Whether this Python could load code built for the machine's architecture."""
        return self.architecture == normalize_architecture(platform.machine())


def normalize_architecture(name: str) -> str:
    """Maps the spellings of other systems (`AMD64`, `arm64`) to Linux' own."""
    return {"amd64": "x86_64", "x64": "x86_64", "arm64": "aarch64"}.get(name.lower(), name.lower())
