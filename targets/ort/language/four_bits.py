"""The matrices of an ONNX Runtime model in 4 bits, some of them in 8, as tuning texts ask for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import LanguageBuildRequest
from modelwright.targets.language.grids import BlockFormat, Grids, NearestGrids
from modelwright.targets.language.mixture import choose_few, choose_mixture
from modelwright.targets.language.own_texts import find_tuning_texts
from modelwright.targets.language.perplexity import measure_loss
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.generator import OrtGenerator
from modelwright.targets.ort.language.matrices import BlockMatrices, FloatMatrices, Matrices

EIGHT = BlockFormat(bits=8, size=32, symmetric=True)
"""Tables; matrices have blocks as long as those of 4 bits."""
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


def write_mixture(request: LanguageBuildRequest, model: PortableModel, write: Write) -> Choice:
    """Writes the model with the fewest matrices of 8 bits with which perplexity keeps the limit.

    Args:
        request: Whose texts it is chosen on.
        model: The portable graph.
        write: Makes a candidate.
    """
    # The head, too: rounded for texts it costs no perplexity that can be seen, and it is a fifth of a small model.
    found = choose_few(model)
    eight = replace(EIGHT, size=found.size)
    few = CompensatedGrids(request, model, found, list(model.linear_layers))
    more = NearestGrids(model, dict.fromkeys(model.linear_layers, eight))

    def write_grids(grids: Grids) -> Path:
        return write(request.scratch / "candidate", BlockMatrices(grids, EIGHT))

    texts = find_tuning_texts(request, model)

    def measure(path: Path) -> float:
        generator = OrtGenerator(path, request.record, RunSettings(threads=request.threads))
        try:
            return measure_loss(generator, texts)
        finally:
            generator.close()

    loss = measure(write(request.scratch / "float", FloatMatrices(model)))
    chosen = choose_mixture(request, few, more, texts, lambda grids: math.expm1(measure(write_grids(grids)) - loss))
    recipe = {
        "method": "weights in blocks, errors made up for on calibration texts (GPTQ)",
        "table_bits": EIGHT.bits,
        "matrices": chosen.grids.describe(),
        "search": dict(chosen.search),
    }
    return Choice(path=write_grids(chosen.grids), recipe=recipe, notes=chosen.notes)
