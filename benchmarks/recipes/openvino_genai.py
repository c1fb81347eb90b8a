"""`optimum-cli export openvino` for openvino-genai, which compresses weights by NNCF: 8 bits, and 4 bits in groups."""

from __future__ import annotations

import os
import sys
from typing import Any, cast

from recipes.language_job import LanguageJob, read_job

WAYS = {
    "int8": ["--weight-format", "int8"],
    "int4-g128": ["--weight-format", "int4", "--group-size", "128", "--group-size-fallback", "adjust"],
    "int4-g32": ["--weight-format", "int4", "--group-size", "32"],
}
"""Asymmetric, all else as it comes. 128 is its own group size; a matrix that it does not divide gets smaller groups."""


def build(job: LanguageJob) -> None:
    """Writes the folder, with the tokenizer as OpenVINO takes it."""
    cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None  # it would report usage to a server
    os.environ["HF_HUB_OFFLINE"] = "1"
    from optimum.commands.optimum_cli import main

    command = ["export", "openvino", "--model", str(job.model), "--task", "text-generation-with-past"]
    sys.argv = ["optimum-cli", *command, *WAYS[job.recipe], str(job.out)]
    main()


if __name__ == "__main__":
    build(read_job())
