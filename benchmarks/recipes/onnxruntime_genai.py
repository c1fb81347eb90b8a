"""onnxruntime-genai's model builder: `-p int8` or `int4` for the CPU, all else as it comes."""

from __future__ import annotations

import json

from onnxruntime_genai.models.builder import create_model
from recipes.language_job import LanguageJob, read_job


def build(job: LanguageJob) -> None:
    """Writes the folder; its config then says how many threads."""
    create_model("", str(job.model), str(job.out), job.recipe, "cpu", str(job.out.parent / "cache"))
    path = job.out / "genai_config.json"
    config = json.loads(path.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = job.threads
    path.write_text(json.dumps(config, indent=4))


if __name__ == "__main__":
    build(read_job())
