"""What is measured: a file, the runtime that runs it, and who made it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from modelwright.core.records.artifact import Artifact

RUNTIMES = {"ort": "onnxruntime", "openvino": "openvino", "tflite": "litert"}
"""First word of a target's name -> runtime, as `plain_loop.py` calls it."""
OURS = "modelwright"


@dataclass(frozen=True, kw_only=True)
class Entrant:
    """A file that takes part.

    Attributes:
        name: Unique among those of a model.
        maker: `modelwright`, or the peer.
        runtime: `onnxruntime`, `openvino` or `litert`.
        file: That the runtime loads.
        settings: Of the runtime, beside one thread: what the maker says the file is to be run with.
        build_s: Seconds that making it took.
    """

    name: str
    maker: str
    runtime: str
    file: Path
    settings: Mapping[str, str] = field(default_factory=dict)
    build_s: float

    @property
    def size_bytes(self) -> int:
        """Of the file, and of those with its weights beside it."""
        beside = [path for path in self.file.parent.iterdir() if path.suffix in {".bin", ".data", ".onnx_data"}]
        return sum(path.stat().st_size for path in {self.file, *beside})


@dataclass(frozen=True, kw_only=True)
class Missing:
    """What could not take part, and why.

    Attributes:
        name: As an entrant's.
        maker: As an entrant's.
        reason: A line.
    """

    name: str
    maker: str
    reason: str


def enter_own(artifacts: Mapping[str, Artifact]) -> Iterable[Entrant]:
    """Yields our artifacts that a plain API runs: each with the settings that its manifest names."""
    for name, artifact in artifacts.items():
        runtime = RUNTIMES.get(name.partition("-")[0])
        if runtime is None:
            continue
        recipe = artifact.manifest.recipe
        settings = dict(recipe.get("compile_options") or {})
        if "inference_precision" in recipe:
            settings["INFERENCE_PRECISION_HINT"] = str(recipe["inference_precision"])
        yield Entrant(
            name=name,
            maker=OURS,
            runtime=runtime,
            file=artifact.model_path,
            settings=settings,
            build_s=artifact.manifest.build_s,
        )
