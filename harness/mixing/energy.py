"""An estimate of what an inference takes, by the bits of its layers.

E = sum over layers of N_MAC * E_MAC(b) + N_mem * E_DRAM(b): the multiplications of a layer, and the elements that it
moves, its weights and what it reads and writes of activations, at its own bits b. E_MAC grows with b^2 and E_DRAM with
b, from what one operation took in one generation of chips (`profiles/technology.py`); a layer in float takes FP32's.
Caches, biases, other operators, idle power and kernels of a real chip are not in it: it orders, it measures nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from modelwright.core.records.codec import Amount, Record
from modelwright.harness.mixing.work import LayerWork
from modelwright.profiles.technology import Technology


class Energy(Record):
    """An estimate for one inference.

    Attributes:
        compute_pj: Of multiplications and additions, in picojoules.
        memory_pj: Of moving weights and activations.
    """

    compute_pj: Amount
    memory_pj: Amount

    @property
    def total_j(self) -> float:
        """Both, in joules."""
        return (self.compute_pj + self.memory_pj) * 1e-12


def estimate_layer(work: LayerWork, bits: int | None, technology: Technology) -> Energy:
    """Returns the estimate for one layer; None is FP32."""
    return Energy(
        compute_pj=work.macs * technology.mac_pj(bits),
        memory_pj=work.moved() * technology.memory_pj(bits),
    )


def estimate(works: Sequence[LayerWork], bits: Mapping[str, int | None], technology: Technology) -> Energy:
    """Returns the estimate for a network.

    Args:
        works: Of all its layers.
        bits: Layer's output -> its bits; those that are not there are in FP32.
        technology: What the operations cost.
    """
    parts = [estimate_layer(work, bits.get(work.output), technology) for work in works]
    return Energy(
        compute_pj=sum(part.compute_pj for part in parts),
        memory_pj=sum(part.memory_pj for part in parts),
    )
