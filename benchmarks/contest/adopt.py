"""A peer's file as an artifact, so that the harness loads and times it as it does ours."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from contest.entrants import Entrant
from msgspec.structs import replace

from modelwright.core.records.artifact import Artifact, write_manifest
from modelwright.core.records.artifact_files import REFERENCE, hash_files, measure_size
from modelwright.core.records.signature import Signature

TEMPLATES = {"onnxruntime": "ort-fp32", "openvino": "openvino-fp32", "litert": "tflite-fp32"}
"""Runtime -> the target that runs a plain file of it, without settings of its own."""


def adopt(entrant: Entrant, templates: Mapping[str, Artifact], folder: Path) -> Artifact | None:
    """Returns the file in an artifact's folder; None where no template of its runtime was built.

    Args:
        entrant: A peer's.
        templates: Our artifacts of the same model, by target.
        folder: To write into; not there yet.
    """
    template = templates.get(TEMPLATES[entrant.runtime])
    if template is None or template.reference_path is None:
        return None
    folder.mkdir(parents=True)
    for path in entrant.file.parent.iterdir():
        shutil.copyfile(path, folder / path.name)
    shutil.copyfile(template.reference_path, folder / REFERENCE)
    manifest = template.manifest
    recipe: dict[str, Any] = {"made by": entrant.name}
    if entrant.runtime == "litert":
        recipe["binding"] = _bind(entrant.file, manifest.signature)
    return write_manifest(
        folder,
        replace(
            manifest,
            model_file=entrant.file.name,
            files=hash_files(folder),
            size_bytes=measure_size(folder),
            recipe=recipe,
            proof=None,
            proof_reason=f"{entrant.maker} made it",
        ),
    )


def _bind(file: Path, signature: Signature) -> dict[str, Any]:
    """Returns which of a TFLite file's tensors are which of the model's: by name, or by place."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file))

    def list_tensors(details: Any, specs: Any) -> list[dict[str, Any]]:
        entries = []
        for place, spec in enumerate(specs):
            named = [index for index, detail in enumerate(details) if spec.name in detail["name"]]
            position = named[0] if len(named) == 1 else place
            shape = [int(size) for size in details[position]["shape"]]
            entries.append(
                {
                    "name": spec.name, "position": position, "shape": shape, "dtype": None,
                    "scales_with_batch": None, "varies": [],
                }
            )  # fmt: skip
        return entries

    return {
        "reset_variables": False,
        "dynamic_batch": False,
        "splits_batch": False,
        "inputs": list_tensors(interpreter.get_input_details(), signature.inputs),
        "outputs": list_tensors(interpreter.get_output_details(), signature.outputs),
    }
