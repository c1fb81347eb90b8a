"""Folders of transformers that classify or embed texts: what they answer is what transformers answers to each text."""

from __future__ import annotations

import csv
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

import onnxruntime as ort
import torch
import transformers
from text_models import add_dense, add_pooling, add_prefix_space, make_text_folder

from modelwright.core.outputs.tasks.classes import ClassMeter
from modelwright.core.outputs.tasks.roles import OutputRole
from modelwright.core.records.codec import encode
from modelwright.core.records.texts import read_texts
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.sample_set import SampleRef
from modelwright.core.samples.texts.store import store_in_child
from modelwright.exporters.exporting import find_or_export
from modelwright.exporters.trace import Trace
from modelwright.exporters.transformers.loading import load_folder
from modelwright.exporters.transformers.pooling import Pooling, make_pooling, pool
from modelwright.exporters.transformers.source import describe_inputs
from modelwright.harness.building import build_targets
from modelwright.harness.given_samples import place_for_export

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers'

TEXTS = ["A text.", "A much longer text, of more than thirty tokens.", "b"]


def _write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def _place(folder: Path, texts: Path, made: Path, asked: int | None = None) -> dict[str, npt.NDArray[Any]]:
    """Returns the arrays that texts become."""
    made.mkdir()
    model = encode(describe_inputs(folder))
    store_in_child(str(texts), str(folder), model, None, [str(texts)], asked, str(made), 1000, lambda _text: None)
    return dict(read_arrays(made))


def _load(folder: Path, made: Path) -> Callable[..., npt.NDArray[Any]]:
    """Returns the module that is exported, called with arrays."""
    source = load_folder(folder, SampleRef(path=made), Trace(folder), trust=False)

    def call(arrays: dict[str, npt.NDArray[Any]]) -> npt.NDArray[Any]:
        with torch.inference_mode():
            found: npt.NDArray[Any] = source.module(
                **{name: torch.from_numpy(np.array(arrays[name])) for name in source.kwargs}
            ).numpy()
        return found

    return call


def _ask_transformers(folder: Path, head: str) -> list[Any]:
    """Returns what transformers answers to each text by itself, without any padding."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, head).from_pretrained(folder).eval()
    known = inspect.signature(model.forward).parameters
    with torch.inference_mode():
        tokens = [tokenizer(text, return_tensors="pt") for text in TEXTS]
        return [model(**{name: value for name, value in each.items() if name in known}) for each in tokens]


def test_classes_are_those_of_each_text_without_padding(tmp_path: Path) -> None:
    head = "AutoModelForSequenceClassification"
    folder = make_text_folder(tmp_path / "m", head, num_labels=3)
    texts = _write(tmp_path / "t.jsonl", [{"text": text, "label": "LABEL_2"} for text in TEXTS])
    arrays = _place(folder, texts, tmp_path / "s")
    assert set(arrays) == {"input_ids", "attention_mask", "token_type_ids", "labels"}
    assert arrays["labels"].tolist() == [2, 2, 2]
    expected = [answer.logits.numpy()[0] for answer in _ask_transformers(folder, head)]
    np.testing.assert_allclose(_load(folder, tmp_path / "s")(arrays), expected, atol=2e-5)


def test_padding_is_no_answer_of_a_model_of_tokens(tmp_path: Path) -> None:
    head = "AutoModelForTokenClassification"
    folder = make_text_folder(tmp_path / "m", head, "distilbert", num_labels=4)
    arrays = _place(folder, _write(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS]), tmp_path / "s")
    found = _load(folder, tmp_path / "s")(arrays)
    role = OutputRole(name="logits", role="tokens", why="", axis=2)
    meter = ClassMeter(role)
    for row, answer in zip(found, _ask_transformers(folder, head), strict=True):
        expected = answer.logits.numpy()[0]
        np.testing.assert_allclose(row[: len(expected)], expected, atol=2e-5)
        assert not row[len(expected) :].any()
        meter.add(row[None], row[None])
    counted = meter.result()
    assert counted is not None
    assert counted.rows == arrays["attention_mask"].sum(), "agreement is counted over tokens, not over padding"


WORDS = [["Ann", "", "went", "to", "Rome"], ["O", "Rome"], ["Who", "is", "Ann", "in-law", "to"]]
TAGS = [["B-PER", "O", "O", "O", "B-LOC"], ["O", "B-LOC"], ["O", "O", "B-PER", -100, "O"]]
NAMES = {0: "O", 1: "B-PER", 2: "I-PER", 3: "B-LOC"}


@pytest.mark.parametrize("spaced", [True, False])
def test_tags_stand_at_the_first_token_of_each_word_as_transformers_places_them(tmp_path: Path, spaced: bool) -> None:
    folder = make_text_folder(tmp_path / "m", "AutoModelForTokenClassification", "roberta", id2label=NAMES)
    if spaced:
        add_prefix_space(folder)
    rows = [{"tokens": words, "ner_tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)]
    arrays = _place(folder, _write(tmp_path / "t.jsonl", rows), tmp_path / "s", 16)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        WORDS, is_split_into_words=True, padding="max_length", truncation=True, max_length=16
    )
    np.testing.assert_array_equal(arrays["input_ids"], tokens["input_ids"])
    numbers = {name: number for number, name in NAMES.items()}
    for row, tags in enumerate(TAGS):
        words, before, expected = tokens.word_ids(row), None, []
        for word in words:  # the recipe of transformers' own example
            first = word is not None and word != before
            expected.append(numbers.get(str(tags[word]), -100) if first else -100)
            before = word
        assert arrays["target_tags"][row].tolist() == expected
    record = read_texts(tmp_path / "s")
    assert record is not None
    told = record.tell("t.jsonl")
    assert any("no space before them" in sentence for sentence in told) is not spaced
    if not spaced:
        return
    assert (record.words, record.unseen) == (11, 2), "the empty word, and the last one of the last row"
    assert any("2 of 11 words with a tag" in sentence for sentence in told)


def test_words_and_whole_texts_beside_each_other_get_rows_of_one_length(tmp_path: Path) -> None:
    folder = make_text_folder(tmp_path / "m", "AutoModelForTokenClassification", "distilbert", id2label=NAMES)
    words = _write(tmp_path / "t.jsonl", [{"tokens": row} for row in WORDS])
    plain = _write(tmp_path / "p.jsonl", [{"text": text} for text in TEXTS])
    model, shapes = encode(describe_inputs(folder)), set()
    for texts in (words, plain):
        made = tmp_path / texts.stem
        made.mkdir()
        both = [str(words), str(plain)]
        store_in_child(str(texts), str(folder), model, None, both, None, str(made), 9, lambda _text: None)
        shapes.add(read_arrays(made)["input_ids"].shape)
    assert len(shapes) == 1


@pytest.mark.slow
@pytest.mark.parametrize("head", ["AutoModelForTokenClassification", "AutoModelForSequenceClassification"])
def test_right_answers_are_those_of_transformers(tmp_path: Path, head: str) -> None:
    kind = {"problem_type": "multi_label_classification"} if "Sequence" in head else {}
    folder = make_text_folder(tmp_path / "m", head, id2label=NAMES, **kind)
    add_prefix_space(folder)
    if kind:
        rows: list[dict[str, Any]] = [{"text": text, "labels": ["B-PER", "O"][: n % 3]} for n, text in enumerate(TEXTS)]
    else:
        rows = [{"tokens": words, "tags": tags} for words, tags in zip(WORDS, TAGS, strict=True)]
    texts = _write(tmp_path / "t.jsonl", rows * 4)
    built = build_targets(
        folder, samples=texts, evaluation=_write(tmp_path / "e.jsonl", rows), targets=["ort-fp32"], out=tmp_path / "out"
    )
    found = built.artifacts["ort-fp32"].manifest.proof
    assert found is not None
    assert found.labels is not None
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = getattr(transformers, head).from_pretrained(folder).eval()
    right = []
    for row in rows:
        with torch.inference_mode():
            tokens = tokenizer(row.get("tokens", row.get("text")), is_split_into_words=not kind, return_tensors="pt")
            logits = model(**tokens).logits[0].numpy()
        if kind:
            right.append({NAMES[number] for number in np.flatnonzero(logits >= 0)} == set(row["labels"]))
            continue
        words = tokens.word_ids()
        for place, word in enumerate(words):
            if word is not None and word != words[place - 1] and row["tags"][word] != -100:
                right.append(NAMES[int(logits[place].argmax())] == row["tags"][word])
    assert (found.labels.correct, found.labels.count) == (sum(right), len(right))
    assert found.labels.accuracy == found.labels.accuracy_fp32
    assert found.labels.f1 == found.labels.f1_fp32


@pytest.mark.slow
def test_an_embedding_is_exported_as_the_folder_pools_it(tmp_path: Path) -> None:
    folder = make_text_folder(tmp_path / "m", "AutoModel")
    add_pooling(folder)
    texts = _write(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS])
    placed = place_for_export(str(folder), str(texts), tmp_path, lambda _text: None, fresh=False, trust=False)
    export = find_or_export(folder, tmp_path / "out" / "model.onnx", samples=SampleRef(path=placed))
    signature = export.model.signature
    assert export.unseen is None
    assert signature.batch_is_dynamic
    assert [spec.name for spec in signature.outputs] == ["embedding"]
    expected = np.stack(
        [answer.last_hidden_state.numpy()[0].mean(axis=0) for answer in _ask_transformers(folder, "AutoModel")]
    )
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    session = ort.InferenceSession(str(export.model.model_path), providers=["CPUExecutionProvider"])
    arrays = read_arrays(placed)
    (found,) = session.run(None, {spec.name: np.array(arrays[spec.name]) for spec in signature.inputs})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = find_or_export(folder, tmp_path / "out" / "model.onnx", samples=SampleRef(path=placed))
    assert again.reused


def test_ways_to_pool_have_their_known_answers() -> None:
    hidden = torch.tensor([[[1.0, 9.0], [3.0, 1.0], [100.0, 100.0]]])
    right, left = torch.tensor([[1, 1, 0]]), torch.tensor([[0, 1, 1]])
    known = {
        "cls": [1.0, 9.0],
        "lasttoken": [3.0, 1.0],
        "max": [3.0, 9.0],
        "mean": [2.0, 5.0],
        "mean_sqrt_len_tokens": [4 / 2**0.5, 10 / 2**0.5],
        "weightedmean": [7 / 3, 11 / 3],
    }
    for mode, expected in known.items():
        found = pool(torch, hidden, right, (mode,))
        np.testing.assert_allclose(found.numpy(), [expected], rtol=1e-6)
    np.testing.assert_allclose(pool(torch, hidden, left, ("cls",)).numpy(), [[3.0, 1.0]])
    weighted = pool(torch, hidden, left, ("weightedmean",)).numpy()
    np.testing.assert_allclose(weighted, [[203 / 3, 67.0]], rtol=1e-6, err_msg="counted from the text's first token")


def test_a_vector_goes_through_the_layers_in_their_order(tmp_path: Path) -> None:
    hidden, mask = torch.tensor([[[1.0, 9.0], [3.0, 1.0], [100.0, 100.0]]]), torch.tensor([[1, 1, 0]])
    both = make_pooling(torch, Pooling(modes=("cls", "mean"), layers=(None,)), tmp_path)(hidden, mask).numpy()
    np.testing.assert_allclose(both, [np.array([1, 9, 2, 5]) / 111**0.5], rtol=1e-6)
    folder = make_text_folder(tmp_path / "m", "AutoModel")
    add_pooling(folder, modules=("Transformer", "Pooling", "Dense", "Normalize"), pooling_mode=["mean", "cls"])
    weights = {"weight": torch.randn(3, 64), "bias": torch.randn(3), "residual": torch.randn(3, 64)}
    add_dense(folder, weights, activation_function="torch.nn.modules.activation.Tanh", use_residual=True)
    texts = _write(tmp_path / "t.jsonl", [{"text": text} for text in TEXTS])
    arrays = _place(folder, texts, tmp_path / "s")
    expected = []
    for answer in _ask_transformers(folder, "AutoModel"):
        vector = torch.cat([answer.last_hidden_state[0].mean(0), answer.last_hidden_state[0, 0]])
        vector = (weights["weight"] @ vector + weights["bias"]).tanh() + weights["residual"] @ vector
        expected.append((vector / vector.norm()).numpy())
    np.testing.assert_allclose(_load(folder, tmp_path / "s")(arrays), expected, atol=1e-5)
    source = load_folder(folder, None, Trace(folder), trust=False)
    assert {"2_Dense/config.json", "2_Dense/model.safetensors"} <= set(source.files)
    assert any("linear.weight" in name for name in source.module.state_dict())


def test_texts_are_tokenized_as_transformers_does_and_those_that_are_too_long_are_counted(tmp_path: Path) -> None:
    folder = make_text_folder(tmp_path / "m", "AutoModelForSequenceClassification", kind="roberta")
    with (tmp_path / "t.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["text", "text_pair", "label"], ["ab", "c", 1], ["ab" * 40, "c", 0]])
    arrays, record = _place(folder, tmp_path / "t.csv", tmp_path / "one"), read_texts(tmp_path / "one")
    assert record is not None
    assert set(arrays) == {"input_ids", "attention_mask", "labels"}, "one kind of tokens: no token_type_ids"
    assert (record.length, record.longest, record.cut, record.pairs) == (64, 84, 1, 2)
    tokens = transformers.AutoTokenizer.from_pretrained(folder)(
        ["ab", "ab" * 40], ["c", "c"], padding="max_length", truncation=True, max_length=64
    )
    np.testing.assert_array_equal(arrays["input_ids"], tokens["input_ids"])
    np.testing.assert_array_equal(arrays["attention_mask"], tokens["attention_mask"])
    assert any("1 texts are cut" in sentence for sentence in record.tell("t.csv"))
    assert _place(folder, tmp_path / "t.csv", tmp_path / "two", 16)["input_ids"].shape == (2, 16)
