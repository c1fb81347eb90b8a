"""The child that reads a folder of transformers: writes its graph and data, and computes what the graph must answer."""

from __future__ import annotations

import importlib.metadata
import shutil
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, BuildFailedError
from modelwright.core.files import hash_file, hash_json
from modelwright.core.memory import read_available_bytes
from modelwright.core.records.language import GRAPH_FILE, TOKENIZER_FILE, WEIGHTS_FILE
from modelwright.exporters.language.config import CONFIG_FILE, Config, load_config, read_raw_config
from modelwright.exporters.language.data_file import require_weights, write_data
from modelwright.exporters.language.decoder import Decoder
from modelwright.exporters.language.folder_files import has_file
from modelwright.exporters.language.graph import OPSET, write_graph
from modelwright.exporters.language.kinds.table import KINDS, require_known
from modelwright.exporters.language.pickled import list_pickled
from modelwright.exporters.language.safetensors_files import StoredTensor, find_weight_files, open_weights
from modelwright.exporters.language.source import is_pickled

COPIED_FILES = (
    TOKENIZER_FILE,
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
    "generation_config.json",
    CONFIG_FILE,
)
"""What an artifact needs of the folder to turn text into tokens and back, and to know when an answer ends."""
_PROGRAMS_BYTES = 700_000_000
"""What torch, transformers and the caches of the comparison take beside weights."""
_PACKAGES = ("transformers", "torch", "onnx", "numpy")


def hash_gguf(source: str) -> dict[str, Any]:
    """Returns the hash of a GGUF file, as `hash_source` does.

    Raises:
        BadInputError: No such file.
    """
    path = Path(source)
    if not path.is_file():
        raise BadInputError(f"no such file: {path}", hint="check the path")
    sha256 = hash_file(path)
    return {"files": {path.name: sha256}, "sha256": sha256}


def hash_source(source: str, *, trust: bool = False) -> dict[str, Any]:
    """Returns the hashes of all files that decide an export: `files` and one `sha256` of them.

    Args:
        source: The folder.
        trust: Whether its weights may be pickled.

    Raises:
        BadInputError: The folder cannot be exported, as far as its file names and config tell.
    """
    place = Path(source)
    require_known(read_raw_config(place), place / CONFIG_FILE)
    require_tokenizer(place)
    pickled = list_pickled(place) if trust and is_pickled(place) else []
    names = [*(pickled or find_weight_files(place)), *(name for name in COPIED_FILES if has_file(place, name))]
    files = {name: hash_file(place / name) for name in sorted(set(names))}
    return {"files": files, "sha256": hash_json(files)}


def write_model(
    folder: str, directory: str, progress: Callable[[str], None], *, low_memory: bool = False
) -> dict[str, Any]:
    """Writes the graph, its data and the tokenizer's files.

    Args:
        folder: Of transformers.
        directory: Empty staging folder.
        progress: Takes the phase that begins.
        low_memory: How the export will be compared with its source; see `require_memory`.

    Returns:
        Fields of `LanguageModel`, but for what its source, its verification and its notes beyond the kind's are.

    Raises:
        BadInputError: The folder cannot be exported.
        BuildFailedError: The memory is too small.
    """
    source, out = Path(folder), Path(directory)
    progress("reading config.json")
    config = load_config(source)
    decoder = KINDS[require_known(config.values, config.path)](config)
    model, weights = write_graph(decoder, source.resolve().name)
    stored = open_weights(source, decoder.prefix)
    require_weights(weights, stored, source)
    require_memory(source, [weight.size_bytes for weight in weights], read_available_bytes(), low_memory=low_memory)
    progress("writing the weights")
    write_data(model, weights, stored, out / WEIGHTS_FILE)
    (out / GRAPH_FILE).write_bytes(model.SerializeToString())
    copied = [name for name in COPIED_FILES if has_file(source, name)]
    for name in copied:
        shutil.copyfile(source / name, out / name)
    files = {name: hash_file(out / name) for name in (GRAPH_FILE, WEIGHTS_FILE)}
    read = [stored[weight.name] for weight in weights if weight.make is None]
    return {
        **_describe(decoder, config),
        "num_parameters": sum(tensor.count for tensor in read),
        "opset": OPSET,
        "files": files,
        "tokenizer_files": {name: hash_file(out / name) for name in copied},
        "size_bytes": sum((out / name).stat().st_size for name in files),
        "notes": [*decoder.notes, *_describe_unread(decoder, stored, {weight.name for weight in weights})],
        "versions": {name: importlib.metadata.version(name) for name in _PACKAGES},
        "weights_dtype": _find_dtype(read),
    }


def require_memory(folder: Path, sizes: Sequence[int], available: int | None, *, low_memory: bool) -> None:
    """Refuses an export that the memory cannot hold, before it begins.

    Args:
        folder: For the message.
        sizes: Of the weights as float32, in bytes.
        available: Memory; None where the system does not tell.
        low_memory: Whether PyTorch will hold one module at a time.

    Raises:
        BuildFailedError: Says how much is needed, by estimate.
    """
    largest, whole = 3 * max(sizes), sum(sizes)
    needed = _PROGRAMS_BYTES + (largest if low_memory else max(whole, largest))
    if available is None or available >= needed:
        return
    raise BuildFailedError(
        f"exporting {folder} would take about {needed / 1e9:.1f} GB of memory, by estimate, of which "
        f"{available / 1e9:.1f} GB are free",
        hint="free some memory, or take a machine with more"
        if low_memory
        else f"add --low-memory, which takes about {(_PROGRAMS_BYTES + largest) / 1e9:.1f} GB; or free some memory",
    )


def require_tokenizer(folder: Path) -> None:
    """Refuses a folder whose tokenizer is not there in the form that every runtime can use.

    Raises:
        BadInputError: Says what to do.
    """
    if not has_file(folder, TOKENIZER_FILE):
        raise BadInputError(
            f"{folder} has no {TOKENIZER_FILE}: an artifact carries its tokenizer",
            hint="AutoTokenizer.from_pretrained(NAME).save_pretrained(FOLDER) writes it, from the name of the model "
            "that the folder was made of",
        )


def _describe(decoder: Decoder, config: Config) -> dict[str, Any]:
    attention = decoder.blocks[0].attention
    windows = {block.attention.window for block in decoder.blocks} - {None}
    named = config.values.get("architectures")
    given = str(named[0]) if isinstance(named, list) and named else ""
    return {
        "architecture": given[:100] if given.isidentifier() else type(config.loaded).__name__,
        "kind": str(config.values["model_type"]),
        "layers": len(decoder.blocks),
        "hidden_size": decoder.hidden_size,
        "intermediate_size": decoder.intermediate_size,
        "attention_heads": attention.heads,
        "kv_heads": attention.kv_heads,
        "head_dim": attention.head_dim,
        "vocab_size": decoder.vocab_size,
        "context_length": decoder.context_length,
        "sliding_window": max((window for window in windows if window is not None), default=None),
        "tied_embeddings": decoder.head is None,
        **_find_token_ids(config),
    }


def _find_token_ids(config: Config) -> dict[str, Any]:
    """Returns the tokens that begin, end and fill texts: what generation_config.json says goes before config.json."""
    from transformers import GenerationConfig

    values = dict(config.values)
    path = config.path.with_name("generation_config.json")
    if path.is_file():
        try:
            read = GenerationConfig.from_pretrained(path.parent, local_files_only=True).to_dict()
        except Exception as error:  # transformers raises whatever a wrong value leads to
            raise BadInputError(
                f"{path} is not a file that transformers reads", hint="remove it, or correct it", detail=str(error)
            ) from error
        values |= {key: value for key, value in read.items() if value is not None}
    vocabulary = config.count("vocab_size")

    def known(key: str) -> list[int]:
        given = values.get(key)
        listed = given if isinstance(given, list) else [given]
        return [token for token in listed if type(token) is int and 0 <= token < vocabulary]

    return {
        "bos_token_id": next(iter(known("bos_token_id")), None),
        "eos_token_ids": known("eos_token_id"),
        "pad_token_id": next(iter(known("pad_token_id")), None),
    }


def _describe_unread(decoder: Decoder, stored: Mapping[str, StoredTensor], read: set[str]) -> list[str]:
    """Says which tensors of the files no weight of the graph is: none should be left over."""
    left = [name for name in stored if name not in read and not name.endswith(tuple(decoder.unused))]
    if decoder.head is None:
        left = [name for name in left if name != "lm_head.weight"]
    if not left:
        return []
    return [f"{len(left)} tensors in the files belong to nothing that is exported: {', '.join(left[:3])}"]


def _find_dtype(tensors: list[StoredTensor]) -> str:
    names = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += tensor.count
    return names[sizes.most_common(1)[0][0]]
