"""The matrices of a LiteRT model in 4 bits, some of them in 8, as tuning texts ask for."""

from __future__ import annotations

import math

from modelwright.core.errors import BuildFailedError
from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import LanguageBuildRequest
from modelwright.targets.language.grids import NearestGrids
from modelwright.targets.language.mixture import Mixture, choose_mixture
from modelwright.targets.language.own_texts import find_tuning_texts
from modelwright.targets.language.perplexity import measure_loss
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.options import RunSettings
from modelwright.targets.tflite.language.generator import TfliteGenerator
from modelwright.targets.tflite.language.matrices import (
    BLOCK_SIZE,
    FloatMatrices,
    Matrices,
    RoundedMatrices,
    choose_format,
)
from modelwright.targets.tflite.language.writing import write_model


def choose_grids(request: LanguageBuildRequest, model: PortableModel) -> Mixture:
    """Finds the fewest matrices of 8 bits with which perplexity keeps the limit.

    Channels are not evened out, as they are for 8 bits: of SmolLM2-135M that spread the weights of blocks by more than
    it gained where activations are rounded (perplexity +4.9 % instead of +3.6 % on 1,024 tokens that only tune).

    Args:
        request: Whose texts it is chosen on.
        model: The portable graph.

    Raises:
        BuildFailedError: None can have 4 bits.
    """
    layers = model.linear_layers.values()
    names = [each.name for each in layers if each.columns != request.record.vocab_size and each.rows % BLOCK_SIZE == 0]
    if not names:
        raise BuildFailedError(
            f"no matrix can have 4 bits in LiteRT: none has a multiple of {BLOCK_SIZE} rows",
            hint="take tflite-int8-dynamic",
        )
    few = CompensatedGrids(request, model, choose_format(4, BLOCK_SIZE), names)
    more = NearestGrids(model, {layer.name: choose_format(8, layer.rows) for layer in layers})
    texts = find_tuning_texts(request, model)

    def measure(matrices: Matrices) -> float:
        path = write_model(request.record, matrices, request.scratch / "candidate")
        generator = TfliteGenerator(path, request.record, RunSettings(threads=request.threads))
        try:
            return measure_loss(generator, texts)
        finally:
            generator.close()

    loss = measure(FloatMatrices(model))
    return choose_mixture(request, few, more, texts, lambda grids: math.expm1(measure(RoundedMatrices(grids)) - loss))
