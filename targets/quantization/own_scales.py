"""Sources that are quantized already: their own scales run as they are, and nothing is quantized a second time."""

from __future__ import annotations

from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.core.onnx.quantized import OWN_SCALES, OwnScales, find_own_scales
from modelwright.targets.contract import BuildRequest
from modelwright.targets.graphs.files import load_model


def read_own_scales(request: BuildRequest) -> OwnScales | None:
    """Returns how the source quantizes its own activations; None where it computes in floats.

    Raises:
        BuildFailedError: It does, and a plan says how else to.
    """
    own = find_own_scales(load_model(request.model_path, weights=False))
    if own is not None and request.plan is not None:
        raise BuildFailedError(
            f"the plan would quantize a second time: the model is quantized already: {own.describe()}",
            hint="leave --plan out; or give the float model that it was made from, and plan that",
        )
    return own


def refuse_second_quantization(target: str, own: OwnScales, way_out: str) -> BuildFailedError:
    """Returns the refusal of a source that a target could only quantize once more.

    Args:
        target: Its name.
        own: What the source is quantized by.
        way_out: What to do instead.
    """
    return BuildFailedError(
        f"{target} would quantize a second time: the model is quantized already: {own.describe()}",
        hint=f"{way_out}; or give the float model that it was made from",
    )


def describe_own(own: OwnScales) -> dict[str, Any]:
    """Returns the recipe of an artifact for which nothing was quantized."""
    return {
        "method": OWN_SCALES,
        "activations": own.activations,
        "integer_operators": list(own.operators),
    }


def explain_own(own: OwnScales) -> str:
    """Returns a note on an artifact that runs them as they are."""
    return f"nothing was quantized: the model is already ({own.describe()}), and runs with its own scales"


def explain_float(own: OwnScales) -> str:
    """Returns a note on an artifact that computes such a model in floats."""
    return (
        f"the model is quantized already ({own.describe()}): here its rounding is computed in floats, which takes "
        "longer than the float model would"
    )
