"""onnxruntime-genai's model builder: `-p int8` or `int4` for the CPU, all else as it comes."""

from __future__ import annotations

import json
import os
import runpy
import sys

from recipes.language_job import LanguageJob, read_job


def build(job: LanguageJob) -> None:
    """Writes the folder; its config then says how many threads."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    command = ["-i", str(job.model), "-o", str(job.out), "-p", job.recipe, "-e", "cpu"]
    module = "onnxruntime_genai.models.builder"
    sys.argv = [module, *command, "-c", str(job.out.parent / "cache")]
    runpy.run_module(module, run_name="__main__", alter_sys=True)
    path = job.out / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = job.threads
    path.write_text(json.dumps(config, indent=4))


if __name__ == "__main__":
    build(read_job())
