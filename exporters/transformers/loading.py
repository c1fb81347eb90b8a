"""A folder of transformers as a PyTorch source: its model, with one named output. For child processes only."""

from __future__ import annotations

import inspect
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from modelwright.core.errors import BadInputError, ToolchainMissingError
from modelwright.core.files import hash_file
from modelwright.core.records.texts import TextInputs, TextTask
from modelwright.core.samples.sample_set import SampleRef
from modelwright.exporters.language.config import CONFIG_FILE, read_raw_config
from modelwright.exporters.language.pickled import PICKLED_INDEX, list_pickled, open_pickled
from modelwright.exporters.language.safetensors_files import find_weight_files
from modelwright.exporters.language.source import is_pickled
from modelwright.exporters.torch.source import TorchSource, hash_state, import_torch, take_rows
from modelwright.exporters.trace import Trace
from modelwright.exporters.transformers.factory import tell_factory
from modelwright.exporters.transformers.pooling import Pooling, make_pooling, read_pooling
from modelwright.exporters.transformers.source import describe_inputs, require_no_code

_CLASSES: Mapping[TextTask, str] = {
    "classification": "AutoModelForSequenceClassification",
    "multi-label classification": "AutoModelForSequenceClassification",
    "regression": "AutoModelForSequenceClassification",
    "token classification": "AutoModelForTokenClassification",
    "embedding": "AutoModel",
}
_OUTPUTS: Mapping[TextTask, str] = {"embedding": "embedding", "multi-label classification": "probabilities"}
_EXAMPLE_TOKENS = 128
"""Of rows without samples."""
_UNUSED = "pooler."
"""Weights that no vector is made of: many folders lack them."""

_Answer = Callable[[Any, Any], Any]
"""Makes the output of what a model returns and of the attention mask."""


def load_folder(folder: Path, samples: SampleRef | None, trace: Trace, *, trust: bool) -> TorchSource:
    """Loads the model of a folder.

    Args:
        folder: Of transformers.
        samples: Where example inputs come from; None for tokens at random.
        trace: Told which files were read.
        trust: Whether code of the folder may run.

    Raises:
        BadInputError: It cannot be loaded, or lacks weights.
        ToolchainMissingError: torch or transformers is not installed.
    """
    require_no_code(folder, trust=trust)
    takes = describe_inputs(folder)
    pooling = read_pooling(folder) if takes.task == "embedding" else Pooling()
    pickled = list_pickled(folder) if trust and is_pickled(folder) else []
    weights = pickled or find_weight_files(folder)
    names = [CONFIG_FILE, *weights, *pooling.files]
    for name in names:
        trace.note_file(str(folder / name))
    torch = import_torch()
    for name in pickled:
        if name != PICKLED_INDEX:
            open_pickled(folder / name)  # refused by name here, whatever transformers would make of it
    model = _load_model(folder, takes, trust=trust, safe=not pickled)
    _require_inputs(folder, model, takes.inputs)
    is_vector = takes.task == "embedding"
    answer = make_pooling(torch, pooling, folder) if is_vector else _choose_answer(takes.task)
    source = TorchSource(
        name=folder.name,
        module=_make_module(torch, model, takes.inputs, answer),
        args=(),
        kwargs={},
        output_names=(_OUTPUTS.get(takes.task, "logits"),),
        files={name: hash_file(folder / name) for name in names},
    )
    if takes.task == "embedding" and not pooling.said:
        source.notes.append(
            f"{folder.name} says nothing of pooling: `embedding` is the mean over the tokens, as sentence-transformers "
            "takes it then"
        )
    source.module.eval().requires_grad_(requires_grad=False)
    source.kwargs = _make_examples(torch, takes, samples, folder.name)
    source.examples_from_samples = samples is not None
    source.weights_sha256 = hash_state(source.module.state_dict())
    return source


def _load_model(folder: Path, takes: TextInputs, *, trust: bool, safe: bool) -> Any:
    try:
        import transformers
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES
    except ModuleNotFoundError as error:
        raise ToolchainMissingError(
            f"Python package {error.name} is not installed; folders of transformers need it",
            hint="pip install 'modelwright[llm]'",
        ) from error
    kind = read_raw_config(folder).get("model_type")
    if not trust and kind not in CONFIG_MAPPING_NAMES:
        raise BadInputError(
            f"{folder / CONFIG_FILE}: transformers {transformers.__version__} knows no model_type {str(kind)[:60]!r}",
            hint=f"install the transformers that saved it, or {tell_factory(folder)}",
        )
    logging.getLogger("transformers").setLevel(logging.ERROR)
    transformers.utils.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model, report = getattr(transformers, _CLASSES[takes.task]).from_pretrained(
                folder,
                dtype=import_torch().float32,
                attn_implementation="eager",  # plain matrix products, as every runtime knows them
                local_files_only=True,
                trust_remote_code=trust,
                use_safetensors=safe,  # pickled ones are read as weights alone
                output_loading_info=True,
            )
    except Exception as error:  # transformers raises whatever a wrong file leads to
        raise BadInputError(
            f"{folder} cannot be loaded by transformers: {_first_line(error)}",
            hint=f"load it with transformers.{_CLASSES[takes.task]}.from_pretrained and mend what that says",
            detail=str(error),
        ) from error
    missing = sorted(name for name in report["missing_keys"] if takes.task != "embedding" or _UNUSED not in name)
    if missing:
        raise BadInputError(
            f"{folder} lacks {len(missing)} weights of its model, such as {missing[0]}: transformers would take random "
            "ones",
            hint="save the model again with save_pretrained after it was trained",
        )
    return model


def _require_inputs(folder: Path, model: Any, inputs: Sequence[str]) -> None:
    known = inspect.signature(model.forward).parameters
    missing = [name for name in inputs if name not in known]
    if missing:
        raise BadInputError(
            f"{folder}: {type(model).__name__} takes no {missing[0]}",
            hint=tell_factory(folder),
        )


def _choose_answer(task: TextTask) -> _Answer:
    if task == "token classification":
        # Rows of one number throughout are known for padding: they are no answers.
        return lambda logits, mask: logits * mask.to(logits.dtype).unsqueeze(-1)
    if task == "multi-label classification":
        # Each class holds or not by itself, which logits do not show.
        return lambda logits, _mask: logits.sigmoid()
    return lambda logits, _mask: logits


def _make_module(torch: Any, model: Any, inputs: Sequence[str], answer: _Answer) -> Any:
    """Returns a module whose parameters are the inputs by name, and which returns one tensor."""

    class TextModel(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model, self.answer = model, answer

        def _answer(self, attention_mask: Any, **rest: Any) -> Any:
            found = self.model(attention_mask=attention_mask, return_dict=False, **rest)
            return self.answer(found[0], attention_mask)

    class PlainModel(TextModel):
        def forward(self, input_ids: Any, attention_mask: Any) -> Any:
            return self._answer(attention_mask, input_ids=input_ids)

    class ModelWithTypes(TextModel):
        def forward(self, input_ids: Any, attention_mask: Any, token_type_ids: Any) -> Any:
            return self._answer(attention_mask, input_ids=input_ids, token_type_ids=token_type_ids)

    return ModelWithTypes() if "token_type_ids" in inputs else PlainModel()


def _make_examples(torch: Any, takes: TextInputs, samples: SampleRef | None, name: str) -> dict[str, Any]:
    """Returns two rows for each input; without samples, tokens at random, of which the second row has half as many."""
    if samples is not None:
        rows = take_rows(samples, takes.inputs, name)
        return {key: torch.from_numpy(value).to(torch.int64) for key, value in rows.items()}
    length = min(_EXAMPLE_TOKENS, takes.most_tokens)
    shape = (2, length)
    mask = torch.ones(shape, dtype=torch.int64)
    mask[1, max(1, length // 2) :] = 0
    tokens = torch.randint(0, takes.vocabulary, shape, generator=torch.Generator().manual_seed(0))
    made = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": torch.zeros(shape, dtype=torch.int64)}
    return {key: made[key] for key in takes.inputs}


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:300]
