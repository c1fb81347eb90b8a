"""Microsoft Olive: its automatic optimisation, and its pass of static quantization with data."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from recipes.job import Job, read_job

SCRIPT = """
import numpy as np, torch
from olive.data.registry import Registry

@Registry.register_dataset()
def read_samples(data_dir, **_):
    arrays = dict(np.load(data_dir)); arrays.pop("labels", None)
    class Samples(torch.utils.data.Dataset):
        def __len__(self): return len(next(iter(arrays.values())))
        def __getitem__(self, row): return {name: value[row] for name, value in arrays.items()}, 0
    return Samples()
"""
"""How Olive is given data: a file of the user's that registers a loader."""


def optimize(job: Job, folder: Path) -> None:
    """Runs `olive auto-opt` at INT8, which quantizes dynamically, or `olive run` with the static pass."""
    if job.recipe == "auto":
        arguments = ["auto-opt", "-m", str(job.model), "--precision", "int8", "--device", "cpu"]
        arguments += ["-o", str(folder / "out"), "--log_level", "1"]
    else:
        (script := folder / "data.py").write_text(SCRIPT)
        data = {
            "name": "samples",
            "type": "DataContainer",
            "user_script": str(script),
            "load_dataset_config": {"type": "read_samples", "data_dir": str(job.archive)},
            "dataloader_config": {"batch_size": 1},
        }
        workflow = {
            "input_model": {"type": "OnnxModel", "model_path": str(job.model)},
            "data_configs": [data],
            "passes": {"quantize": {"type": "OnnxStaticQuantization", "data_config": "samples"}},
            "output_dir": str(folder / "out"),
            "cache_dir": str(folder / "cache"),
        }
        (file := folder / "workflow.json").write_text(json.dumps(workflow))
        arguments = ["run", "--config", str(file)]
    environment = {**os.environ, "OLIVE_DISABLE_TELEMETRY": "1"}
    subprocess.run([sys.executable, "-m", "olive", *arguments], check=True, cwd=folder, env=environment)


if __name__ == "__main__":
    asked = read_job()
    (work := asked.out.parent / "work").mkdir()
    optimize(asked, work)
    found = [path for path in (work / "out").rglob("*.onnx") if ".olive-cache" not in path.parts]
    if len(found) != 1:  # it ends well although a pass failed
        sys.exit("Olive says that a pass failed and leaves no model")
    shutil.copytree(found[0].parent, asked.out, dirs_exist_ok=True)
