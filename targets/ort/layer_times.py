"""What the layers of a candidate take in ONNX Runtime, each by the name that it has in the float model."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from modelwright.core.errors import BuildFailedError
from modelwright.targets.contract import Feeds, RunSettings
from modelwright.targets.graphs.files import save_model
from modelwright.targets.graphs.run import open_file
from modelwright.targets.ort.layer_names import name_layers
from modelwright.targets.ort.profile import describe_profiler, time_operators
from modelwright.targets.ort.session import prepare_options
from modelwright.targets.profiling import typical
from modelwright.targets.quantization.kept import LayerTimes

_FILE = "timed.onnx"


def time_layers(model: Any, feeds: Feeds, scratch: Path) -> LayerTimes:
    """Profiles a few inferences on one thread.

    Args:
        model: A candidate.
        feeds: One inference's inputs.
        scratch: For the model and the profile.
    """
    settings = RunSettings(threads=1)
    path = scratch / _FILE
    save_model(model, path)
    session = open_file(path, settings, BuildFailedError, prepare_options(settings, scratch))
    operators, _ = time_operators(session, lambda: session.run(None, dict(feeds)))
    times: dict[str, float] = defaultdict(float)
    for operator in name_layers(operators, model):
        for name in operator.nodes:
            times[name] += typical(operator.times_us)
    total_us = sum(typical(operator.times_us) for operator in operators)
    return LayerTimes(source=describe_profiler(), times_us=times, total_us=total_us)
