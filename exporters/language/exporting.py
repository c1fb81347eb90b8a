"""The parent side of an export of a language model: places, children, the record. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError
from modelwright.core.files import is_plain_file
from modelwright.core.process.child import Child, Progress, run_in_child
from modelwright.core.records.codec import decode
from modelwright.core.records.language import LANGUAGE_RECORD, LanguageModel, load_language, save_language
from modelwright.core.scratch import scratch_directory, staged_directory

_SHAPE = ("layers", "kv_heads", "head_dim", "vocab_size", "context_length")
_OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
"""What is read lies on this machine: nothing asks a hub."""


def export_language(
    folder: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    fresh: bool = False,
    low_memory: bool = False,
    progress: Progress | None = None,
) -> LanguageModel:
    """Turns a transformers folder of a causal language model into a verified FP32 graph with a cache.

    An export that lies there already, of the same files, is found and not made again.

    Args:
        folder: With `config.json`, safetensors and `tokenizer.json`.
        out: The folder to write: `model.onnx`, `model.onnx.data`, `language.json` and the tokenizer's files.
        overwrite: Replace an export of something else that lies there; nothing else is ever replaced.
        fresh: Make it again although its source is unchanged.
        low_memory: While it is compared with PyTorch, hold the weights of one module at a time.
        progress: Takes a line about what is going on.

    Returns:
        The record, which also lies in the folder.

    Raises:
        BadInputError: The source cannot be used, or something else lies at `out`.
        BuildFailedError: The graph does not follow its source, or the disk is full.
        ToolchainMissingError: transformers, torch, onnx or onnxruntime is absent or broken.
    """
    folder, out = Path(folder), Path(out)
    with Child(f"exporting {folder}", crash_error=BadInputError, environment=_OFFLINE) as child:
        hashes = child.call("modelwright.exporters.language.worker:hash_source", {"folder": str(folder)})
        found = None if fresh else _find_earlier(out, hashes["sha256"])
        if found is not None:
            return found
        _require_free(out, overwrite=overwrite)
        with staged_directory(out) as staging, scratch_directory() as scratch:
            fields = child.call(
                "modelwright.exporters.language.worker:write_model",
                {"folder": str(folder), "directory": str(staging)},
                progress=progress,
            )
            answers = str(Path(scratch) / "reference.npz")
            shape = {name: fields[name] for name in _SHAPE}
            child.call(
                "modelwright.exporters.language.reference:compute_reference",
                {"folder": str(folder), "shape": shape, "path": answers, "low_memory": low_memory},
                progress=progress,
            )
            child.close()  # its copy of the weights must not lie beside that of the graph
            verification = run_in_child(
                "modelwright.exporters.language.follows:compare_with_reference",
                {"directory": str(staging), "shape": shape, "path": answers},
                purpose=f"checking the export of {folder}",
                crash_error=BuildFailedError,
                progress=progress,
            )
            model = _to_record(fields, hashes, str(folder), verification)
            save_language(staging, model)
    return model


def _find_earlier(out: Path, sha256: str) -> LanguageModel | None:
    """Returns the export that lies there, where it is whole and of the same source."""
    if not is_plain_file(out, LANGUAGE_RECORD):
        return None
    try:
        found = load_language(out)
    except ModelwrightError:
        return None
    return found if found.source.sha256 == sha256 else None


def _require_free(out: Path, *, overwrite: bool) -> None:
    """Refuses a folder where something lies that must not be replaced.

    Raises:
        BadInputError: Names it.
    """
    if not out.exists():
        return
    if not out.is_dir():
        raise BadInputError(f"{out} is a file, not a folder", hint="choose another --out")
    names = sorted(path.name for path in out.iterdir())
    if not names:
        return
    if LANGUAGE_RECORD not in names:
        raise BadInputError(
            f"{out} holds {names[0]}, and no export of a language model: nothing there is replaced",
            hint="choose another --out",
        )
    if not overwrite:
        raise BadInputError(f"{out} holds another export", hint="choose another --out, or add --overwrite")


def _to_record(
    fields: Mapping[str, Any], hashes: Mapping[str, Any], path: str, verification: Mapping[str, Any]
) -> LanguageModel:
    rest = {name: value for name, value in fields.items() if name != "weights_dtype"}
    source = {"kind": "folder", "path": path, "weights_dtype": fields["weights_dtype"], **hashes}
    return decode(LanguageModel, {**rest, "source": source, "verification": verification, "verification_reason": None})
