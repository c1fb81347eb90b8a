"""The parent side of an export of a language model: places, children, the record. Imports nothing heavy."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError
from modelwright.core.files import is_plain_file
from modelwright.core.process.child import Child, Progress, run_in_child
from modelwright.core.process.offline import OFFLINE
from modelwright.core.records.codec import decode
from modelwright.core.records.language import LANGUAGE_RECORD, LanguageModel, load_language, save_language
from modelwright.core.scratch import scratch_directory, staged_directory
from modelwright.exporters.hub import name_snapshot
from modelwright.exporters.language.source import is_gguf, is_pickled

_WORKER = "modelwright.exporters.language.worker"
_SHAPE = ("layers", "kv_heads", "head_dim", "vocab_size", "context_length")


def export_language(
    source: str | Path,
    out: str | Path,
    *,
    overwrite: bool = False,
    fresh: bool = False,
    low_memory: bool = False,
    folder: Path | None = None,
    trust: bool = False,
    progress: Progress | None = None,
) -> LanguageModel:
    """Turns a causal language model into a verified FP32 graph with a cache.

    An export that lies there already, of the same files, is found and not made again.

    Args:
        source: A transformers folder with `config.json`, safetensors and `tokenizer.json`, or a GGUF file.
        out: The folder to write: `model.onnx`, `model.onnx.data`, `language.json` and the tokenizer's files.
        overwrite: Replace an export of something else that lies there; nothing else is ever replaced.
        fresh: Make it again although its source is unchanged.
        low_memory: While it is compared with PyTorch, hold the weights of one module at a time.
        folder: What `write_folder` made of a source that needs it, where that is there already.
        trust: Read pickled weights, as weights alone.
        progress: Takes a line about what is going on.

    Returns:
        The record, which also lies in the folder.

    Raises:
        BadInputError: The source cannot be used, or something else lies at `out`.
        BuildFailedError: The graph does not follow its source, or the disk or the memory is too small.
        ToolchainMissingError: transformers, torch, onnx or onnxruntime is absent or broken.
    """
    source, out = Path(source), Path(out)
    with Child(f"exporting {source}", crash_error=BadInputError, environment=OFFLINE) as child:
        if is_gguf(source):
            hashes = child.call(f"{_WORKER}:hash_gguf", {"source": str(source)})
        else:
            hashes = child.call(f"{_WORKER}:hash_source", {"source": str(source), "trust": trust})
        found = None if fresh else _find_earlier(out, hashes["sha256"])
        if found is not None:
            return found
        _require_free(out, overwrite=overwrite)
        with staged_directory(out) as staging, scratch_directory(out.parent) as scratch:
            if folder is None and needs_folder(source):
                folder = Path(scratch) / source.stem
                write_folder(source, folder, progress=progress)
            folder = folder or source
            fields = child.call(
                f"{_WORKER}:write_model",
                {"folder": str(folder), "directory": str(staging), "low_memory": low_memory},
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
                purpose=f"checking the export of {source}",
                crash_error=BuildFailedError,
                progress=progress,
            )
            model = _to_record(fields, hashes, source, verification)
            save_language(staging, model)
    return model


def needs_folder(source: str | Path) -> bool:
    """Whether `write_folder` has to make a folder of safetensors of a source first."""
    return is_gguf(source) or is_pickled(source)


def write_folder(source: str | Path, folder: str | Path, *, progress: Progress | None = None) -> None:
    """Writes what a GGUF file, or a folder with pickled weights, holds as a transformers folder with safetensors.

    Args:
        source: The GGUF file; or the folder, whose weights are read as weights alone.
        folder: To write; must not be there.
        progress: Takes a line about what is going on.

    Raises:
        BadInputError: It is no GGUF file, or of a kind that is not read; pickled weights would run code; or the folder
            is there.
        ToolchainMissingError: transformers or gguf is not installed.
    """
    folder = Path(folder)
    if folder.exists():
        raise BadInputError(f"{folder} exists: nothing there is replaced", hint="choose another folder")
    with staged_directory(folder) as staging:
        run_in_child(
            f"modelwright.exporters.language.{'gguf_file' if is_gguf(source) else 'pickled'}:make_folder",
            {"path": str(source), "directory": str(staging)},
            purpose=f"reading {source}",
            crash_error=BadInputError,
            environment=OFFLINE,
            progress=progress,
        )


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
    fields: Mapping[str, Any], hashes: Mapping[str, Any], path: Path, verification: Mapping[str, Any]
) -> LanguageModel:
    rest = {name: value for name, value in fields.items() if name != "weights_dtype"}
    hub = name_snapshot(path)
    kind = "gguf" if is_gguf(path) else "folder" if hub is None else "hub"
    source = {"kind": kind, "path": hub or str(path), "weights_dtype": fields["weights_dtype"], **hashes}
    return decode(LanguageModel, {**rest, "source": source, "verification": verification, "verification_reason": None})
