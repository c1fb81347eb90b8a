"""What arithmetic and memory cost in a generation of chips: the constants of energy estimates by bits."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from modelwright.core.records.codec import Record, Text

_WORD_BITS = 32
_MEASURED_BITS = 8
_Picojoules = Annotated[float, Meta(gt=0, le=1e6, extra={"hint": "in picojoules, 1e-12 J"})]


class Technology(Record):
    """Energies of single operations, and what follows of them for other bits.

    Attributes:
        node: The generation, such as `45 nm`.
        fp32_multiply_pj: A multiplication of 32-bit floats.
        fp32_add_pj: An addition of such.
        int8_multiply_pj: A multiplication of 8-bit integers.
        int8_add_pj: An addition of such.
        dram_word_pj: Reading or writing 32 bits of main memory.
        source: Where the figures come from.
    """

    node: Text
    fp32_multiply_pj: _Picojoules
    fp32_add_pj: _Picojoules
    int8_multiply_pj: _Picojoules
    int8_add_pj: _Picojoules
    dram_word_pj: _Picojoules
    source: Text

    def mac_pj(self, bits: int | None) -> float:
        """Returns the energy of a multiplication and its addition; None is 32-bit float.

        That of integers grows with the square of their bits, as a multiplier's cells do.
        """
        if bits is None:
            return self.fp32_multiply_pj + self.fp32_add_pj
        return (self.int8_multiply_pj + self.int8_add_pj) * (bits / _MEASURED_BITS) ** 2

    def memory_pj(self, bits: int | None) -> float:
        """Returns the energy of moving one element from or to main memory, in proportion to its bits."""
        return self.dram_word_pj * (_WORD_BITS if bits is None else bits) / _WORD_BITS


HOROWITZ_45NM = Technology(
    node="45 nm",
    fp32_multiply_pj=3.7,
    fp32_add_pj=0.9,
    int8_multiply_pj=0.2,
    int8_add_pj=0.03,
    dram_word_pj=640.0,
    source="Horowitz, Computing's energy problem, ISSCC 2014, 45 nm at 0.9 V: float 3.7 and 0.9 pJ, 8-bit integers 0.2 "
    "and 0.03 pJ, 1.3 nJ for 64 bits of DRAM, its lower figure (640 pJ a word of 32 bits, as Han et al. 2015 list it)",
)
"""What a profile has that says nothing else."""
