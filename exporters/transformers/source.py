"""What a folder of transformers is, told by its config.json and its names of files, without running anything of it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError
from modelwright.core.files import read_json
from modelwright.core.records.texts import TextInputs, TextTask
from modelwright.exporters.language.config import CONFIG_FILE, read_raw_config
from modelwright.exporters.transformers.factory import tell_factory
from modelwright.exporters.transformers.pooling import MODULES_FILE

_ENDINGS: Mapping[str, TextTask] = {
    "ForSequenceClassification": "classification",
    "ForTokenClassification": "token classification",
    "Model": "embedding",
}
"""What the architectures of transformers end with -> what they are taken as."""
_POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len")
_AFTER_PADDING = frozenset(
    {
        *("roberta", "xlm-roberta", "xlm-roberta-xl", "roberta-prelayernorm", "camembert", "xmod", "mpnet"),
        *("longformer", "data2vec-text", "luke", "ibert"),
    }
)
"""Model types that count positions from the number behind pad_token_id, so that as many of them are never used."""
_USUAL_POSITIONS = 512
"""Of models that count no positions, and so take texts of any length: what most others take."""
_USUAL_CLASSES = 2
"""As transformers has it where a config says nothing."""
_CLASS_LETTERS = 200


def is_transformers_folder(path: Path) -> bool:
    """Whether a folder is one of transformers; a damaged config is no sign of one."""
    if not (path / CONFIG_FILE).is_file():
        return False
    try:
        config = read_json(path / CONFIG_FILE, "the config of a transformers model")
    except BadInputError:
        return False
    is_model = "model_type" in config or "architectures" in config
    # Exports to ONNX lie beside a copy of the config: they are what is meant where there are no weights.
    return is_model and (any(path.glob("*.safetensors*")) or any(path.glob("*.bin")) or not any(path.rglob("*.onnx")))


def find_task(folder: Path, config: Mapping[str, Any]) -> TextTask:
    """Returns what a model does.

    Raises:
        BadInputError: Nothing that is exported here, or the config does not say.
    """
    path = folder / CONFIG_FILE
    named = config.get("architectures")
    architecture = str(named[0])[:100] if isinstance(named, list) and named else None
    if (folder / MODULES_FILE).is_file():
        return "embedding"
    if architecture is None:
        raise BadInputError(
            f"{path} names no architecture: whether its model gives classes or vectors is not known",
            hint='add its class, such as "architectures": ["BertForSequenceClassification"]',
        )
    task = next((task for ending, task in _ENDINGS.items() if architecture.endswith(ending)), None)
    if task is None or config.get("is_encoder_decoder"):
        raise BadInputError(
            f"{path} names the architecture {architecture}; of transformers, causal language models are exported, and "
            f"architectures that end with {', '.join(_ENDINGS)}, without a decoder",
            hint=tell_factory(folder),
        )
    if task == "classification" and config.get("problem_type") == "multi_label_classification":
        return "multi-label classification"
    if task == "classification" and (config.get("problem_type") == "regression" or len(_read_classes(config)) == 1):
        return "regression"
    return task


def describe_inputs(folder: Path) -> TextInputs:
    """Returns what a model makes of texts, and takes of them.

    Raises:
        BadInputError: It is not exported here, or its config is damaged.
    """
    config = read_raw_config(folder)
    task = find_task(folder, config)
    types = config.get("type_vocab_size")
    with_types = isinstance(types, int) and types > 1
    return TextInputs(
        task=task,
        inputs=("input_ids", "attention_mask", *(["token_type_ids"] if with_types else [])),
        classes=None if task in ("regression", "embedding") else _read_classes(config),
        vocabulary=_read_vocabulary(folder, config),
        most_tokens=_find_most_tokens(config),
    )


def require_no_code(folder: Path, *, trust: bool) -> None:
    """Refuses a folder whose model is code of its own, which would be run.

    Raises:
        BadInputError: It is, and the user does not trust it.
    """
    if "auto_map" in read_raw_config(folder) and not trust:
        raise BadInputError(
            f"{folder / CONFIG_FILE}: auto_map names Python code in the folder, which runs when the model is read",
            hint="add --trust if you trust who made it",
        )


def _read_vocabulary(folder: Path, config: Mapping[str, Any]) -> int:
    size = config.get("vocab_size")
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise BadInputError(
            f"{folder / CONFIG_FILE} has no vocab_size: its model reads no texts",
            hint=tell_factory(folder),
        )
    return size


def _find_most_tokens(config: Mapping[str, Any]) -> int:
    sizes = [config[name] for name in _POSITIONS if isinstance(config.get(name), int)]
    most = sizes[0] if sizes and sizes[0] > 0 else _USUAL_POSITIONS
    padding = config.get("pad_token_id")
    if config.get("model_type") in _AFTER_PADDING and isinstance(padding, int):
        most -= padding + 1
    return max(1, min(most, 2**20))


def _read_classes(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the names of the classes, in the order of the model's output."""
    names = config.get("id2label")
    if isinstance(names, dict) and names:
        numbered = {int(key): str(name) for key, name in names.items() if str(key).isdecimal()}
        if sorted(numbered) == list(range(len(names))):
            return tuple(_clean(numbered[number]) for number in range(len(names)))
    count = config.get("num_labels") or config.get("_num_labels")
    return tuple(f"LABEL_{number}" for number in range(count if isinstance(count, int) else _USUAL_CLASSES))


def _clean(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:_CLASS_LETTERS]
