"""Chooses which matrices have 4 bits and which 8, by what that does to the perplexity of tuning texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import LanguageBuildRequest
from modelwright.targets.language.grids import BlockFormat, Grids, SparedGrids, choose_spared
from modelwright.targets.language.perplexity import measure_loss
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.generator import OrtGenerator
from modelwright.targets.ort.language.matrices import BlockMatrices, FloatMatrices, Matrices

FEW = BlockFormat(bits=4, size=32, symmetric=False)
MORE = BlockFormat(bits=8, size=32, symmetric=True)
DEFAULT_INCREASE = 0.08
"""Of perplexity, where the user set no limit."""
_SHARES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.75)
"""Of the weights, that have 8 bits."""
Write = Callable[[Path, Matrices], Path]
"""Writes a model into a folder, and returns its file."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What was chosen.

    Attributes:
        path: Of the model.
        recipe: For the manifest.
        notes: For the user.
    """

    path: Path
    recipe: Mapping[str, Any]
    notes: tuple[str, ...]


def choose_mixture(request: LanguageBuildRequest, model: PortableModel, write: Write) -> Choice:
    """Finds the fewest matrices of 8 bits with which perplexity grows by no more than the limit.

    Args:
        request: Whose texts it is chosen on.
        model: The portable graph.
        write: Makes a candidate.
    """
    names = [layer.name for layer in model.linear_layers.values() if layer.columns != request.record.vocab_size]
    few = CompensatedGrids(request, model, FEW, names)
    noise = {name: few.read_noise(name) for name in names}
    limit = DEFAULT_INCREASE if request.max_perplexity_increase is None else request.max_perplexity_increase

    def write_share(share: float) -> tuple[Path, Grids]:
        grids = SparedGrids(few, choose_spared(model, noise, share), MORE)
        return write(request.scratch / f"share-{share:g}", BlockMatrices(grids, MORE)), grids

    recipe = {"method": "weights in blocks, errors made up for on calibration texts (GPTQ)", "table_bits": MORE.bits}
    if request.tuning is None:
        path, grids = write_share(0.0)
        note = "no tuning texts: all matrices but the head have 4 bits, whatever that does to perplexity"
        return Choice(path=path, recipe={**recipe, "matrices": grids.describe()}, notes=(note,))
    tuning = request.tuning

    def measure(path: Path) -> float:
        generator = OrtGenerator(path, request.record, RunSettings(threads=request.threads))
        try:
            return measure_loss(generator, tuning)
        finally:
            generator.close()

    loss = measure(write(request.scratch / "float", FloatMatrices(model)))
    tried: dict[float, float] = {}
    low, high = 0, len(_SHARES) - 1
    while low <= high:
        middle = (low + high) // 2 if tried else 1
        share = _SHARES[middle]
        tried[share] = math.expm1(measure(write_share(share)[0]) - loss)
        request.progress(f"{share:.0%} of the weights in 8 bits: perplexity {tried[share]:+.1%} on tuning texts")
        low, high = (low, middle - 1) if tried[share] <= limit else (middle + 1, high)
    good = [share for share, increase in tried.items() if increase <= limit]
    share = min(good) if good else max(tried)
    path, grids = write_share(share)
    notes = () if good else (f"perplexity grows by {tried[share]:.1%} on tuning texts, more than {limit:.1%}",)
    told = [{"share_in_8_bits": share, "perplexity_increase": increase} for share, increase in sorted(tried.items())]
    search = {"limit": limit, "tuning_texts": len(tuning), "tried": told}
    return Choice(path=path, recipe={**recipe, "matrices": grids.describe(), "search": search}, notes=notes)
