"""What a recipe for language models is given: `python -m recipes.NAME JOB.json`, in the peer's own environment."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class LanguageJob:
    """One way to build one model.

    Attributes:
        recipe: One of the module's ways, by the name that it has there.
        model: The folder of transformers, with weights in FP32.
        out: A folder that is there and empty; the result goes into it.
        threads: For the work, and for running where that is part of the result.
    """

    recipe: str
    model: Path
    out: Path
    threads: int


def read_job() -> LanguageJob:
    """Reads the file that the first argument names."""
    values = json.loads(Path(sys.argv[1]).read_text())
    return LanguageJob(
        recipe=values["recipe"], model=Path(values["model"]), out=Path(values["out"]), threads=values["threads"]
    )
