"""Language models in LiteRT follow FP32: whole prompts, token by token, ragged batches, texts that are scored."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_models import CONFIGS, make_language_folder

from modelwright.core.errors import BadInputError, BuildFailedError, MeasurementInvalidError
from modelwright.core.records.language import LanguageModel, load_language
from modelwright.exporters.language import export_language
from modelwright.targets.language.contract import Generator, LanguageBuildRequest
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings
from modelwright.targets.tflite.language import four_bits

pytest.importorskip("ai_edge_litert")
ort = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")
tokenizers = pytest.importorskip("tokenizers")
Array = np.ndarray[Any, Any]
KINDS = [kind if kind == "llama" else pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS]
"""Tied and untied heads, windows, biases, learnt positions, norms of heads, softly limited scores and logits."""
CONTEXT = 384
GELU_KINDS = ("gpt2", "gemma", "gemma2", "gemma3_text")
"""XNNPACK approximates Gelu within some 1e-4."""


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make_language_folder(folder / "source", request.param, max_position_embeddings=CONTEXT)
    export_language(folder / "source", folder / "model")
    return folder / "model"


def build(
    name: str, model: Path, directory: Path, record: LanguageModel | None = None, **fields: Any
) -> tuple[LanguageBuildRequest, Any]:
    for each in ("artifact", "scratch", "shared"):
        (directory / each).mkdir(parents=True)
    request = LanguageBuildRequest(
        model=model,
        record=record or load_language(model),
        source=model,
        directory=directory / "artifact",
        scratch=directory / "scratch",
        shared=directory / "shared",
        progress=lambda line: None,
        threads=2,
        **{"calibration": None, "tuning": None, **fields},
    )
    return request, get_target(name).build(request)


@contextmanager
def build_and_load(name: str, model: Path, directory: Path) -> Iterator[Generator]:
    request, built = build(name, model, directory)
    assert [path.name for path in request.directory.iterdir()] == [built.model_file]
    with get_target(name).load(
        request.directory, built.model_file, built.recipe, request.record, RunSettings(threads=2)
    ) as generator:
        yield generator


class Reference:
    """The portable graph as it is exported, without a cache: each text from its beginning."""

    def __init__(self, model: Path) -> None:
        self._session = ort.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
        self.record: LanguageModel = load_language(model)

    def score(self, tokens: Array) -> Array:
        record = self.record
        parts = [f"past_key_values.{layer}.{part}" for layer in range(record.layers) for part in ("key", "value")]
        feeds = {
            "input_ids": tokens[None],
            "attention_mask": np.ones((1, len(tokens)), np.int64),
            "position_ids": np.arange(len(tokens))[None],
            "num_logits": np.array([len(tokens)]),
            **dict.fromkeys(parts, np.zeros((1, record.kv_heads, 0, record.head_dim), np.float32)),
        }
        logits: Array = self._session.run(["logits"], feeds)[0][0]
        return logits


def relative_error(found: Array, expected: Array) -> float:
    assert found.shape == expected.shape
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("exported", KINDS, indirect=True)
def test_fp32_follows_the_exported_graph(exported: Path, tmp_path: Path) -> None:
    """Two prompts of different length, one after the other, and tokens enough to make the cache grow."""
    reference = Reference(exported)
    limit = {"gemma": 1.1e-3}.get(reference.record.kind, 1e-3) if reference.record.kind in GELU_KINDS else 1e-5
    vocabulary = reference.record.vocab_size
    rng = np.random.default_rng(0)
    rows = [rng.integers(0, vocabulary, length + 10) for length in (60, 41)]
    prompts, mask = np.zeros((2, 60), np.int64), np.ones((2, 60), np.int64)
    prompts[0], prompts[1, 19:], mask[1, :19] = rows[0][:60], rows[1][:41], 0
    expected = [reference.score(row) for row in rows]
    with build_and_load("tflite-fp32", exported, tmp_path) as generator:
        found = generator.prefill(prompts, mask)
        assert relative_error(found, np.stack([expected[0][59], expected[1][40]])) < limit
        for step in range(10):
            found = generator.step(np.array([rows[0][60 + step], rows[1][41 + step]]))
            assert relative_error(found, np.stack([expected[0][60 + step], expected[1][41 + step]])) < limit
        assert relative_error(generator.score(rows[0][None]), expected[0][None]) < limit
        # Another prompt, longer than the cache was, forgets all of it; then the cache is full, and grows.
        longer = rng.integers(0, vocabulary, 200)
        expected_longer = reference.score(longer)
        assert relative_error(generator.prefill(longer[None, :120]), expected_longer[119:120]) < limit
        before = generator.cache_bytes()
        for place in range(120, 200):
            assert relative_error(generator.step(longer[place : place + 1]), expected_longer[place : place + 1]) < limit
        assert before == 256 * reference.record.cache_bytes_per_token
    operators = generator.describe_execution()["operators"]
    assert operators["BATCH_MATMUL"] == 2 * reference.record.layers
    assert operators["FULLY_CONNECTED fp32"] == len(PortableModel(exported).linear_layers)


@pytest.mark.parametrize(
    "exported", ["llama", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("qwen2", "gpt2"))], indirect=True
)
def test_8_bits_follow_the_exported_graph_in_a_quarter_of_its_size(exported: Path, tmp_path: Path) -> None:
    reference = Reference(exported)
    tokens = np.random.default_rng(0).integers(0, reference.record.vocab_size, 24)
    with build_and_load("tflite-int8-dynamic", exported, tmp_path) as generator:
        # Weights and what they are multiplied with have 8 bits; a layer that is wrong gives 1 and more.
        assert relative_error(generator.score(tokens[None]), reference.score(tokens)[None]) < 0.15
        assert relative_error(generator.prefill(tokens[None, :20]), reference.score(tokens)[19:20]) < 0.15
        described = generator.describe_execution()
    assert described["precision"] == "int8"
    assert not {"FULLY_CONNECTED fp32", "DEQUANTIZE"} & set(described["operators"])


@pytest.mark.slow
@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_4_bits_are_for_what_blocks_fill_and_as_many_as_the_limit_lets(exported: Path, tmp_path: Path) -> None:
    """The matrix after a gate has 48 rows, which blocks of 32 do not fill; the head is a table."""
    rows = np.random.default_rng(0).integers(0, 250, (6, 48))
    target = get_target("tflite-int4-weights")
    counts = {}
    for name, limit in (("loose", 10.0), ("tight", -0.9)):
        request, built = build(
            target.record.name,
            exported,
            tmp_path / name,
            calibration=rows[:3],
            tuning=rows[3:],
            max_perplexity_increase=limit,
        )
        with target.load(
            request.directory, built.model_file, built.recipe, request.record, RunSettings(threads=1)
        ) as generator:
            generator.prefill(rows[:1])
            operators = generator.describe_execution()["operators"]
        counts[name] = [operators[f"FULLY_CONNECTED {kind}"] for kind in ("int4", "int8")]
        assert built.recipe["search"]["limit"] == limit
        assert bool(built.notes) == (name == "tight")
    assert counts["loose"] == [6 * request.record.layers, request.record.layers + 1]
    assert counts["tight"][0] < counts["loose"][0]
    assert sum(counts["tight"]) == sum(counts["loose"])


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_weights_lie_in_the_file_once(exported: Path, tmp_path: Path) -> None:
    """Two graphs read them, and a head its table."""
    model = PortableModel(exported)
    request, built = build("tflite-int8-dynamic", exported, tmp_path)
    matrices = {layer.weight: layer.rows * layer.columns for layer in model.linear_layers.values()}
    pages = sum(-(-size // 4096) * 4096 for size in matrices.values())
    tables = 2 * 4 * CONTEXT * request.record.head_dim // 2
    size = (request.directory / built.model_file).stat().st_size
    norms_and_graphs = 4096 * (2 * request.record.layers + 1) + 300_000
    assert pages + tables < size < pages + tables + norms_and_graphs


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_what_does_not_fit_the_context_is_refused_before_it_is_run(exported: Path, tmp_path: Path) -> None:
    with build_and_load("tflite-fp32", exported, tmp_path) as generator:
        with pytest.raises(BadInputError, match="more than the context of the model") as caught:
            generator.prefill(np.zeros((1, CONTEXT + 1), np.int64))
        assert "shorter prompts" in (caught.value.hint or "")
        generator.prefill(np.zeros((1, CONTEXT), np.int64))
        with pytest.raises(BadInputError, match="385 tokens are more"):
            generator.step(np.zeros(1, np.int64))


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_a_token_that_the_model_does_not_know_is_refused_and_others_go_on(exported: Path, tmp_path: Path) -> None:
    with build_and_load("tflite-fp32", exported, tmp_path) as generator:
        expected = np.array(generator.prefill(np.array([[1, 2]])))
        for unknown in (320, -1):
            with pytest.raises(MeasurementInvalidError, match="LiteRT cannot run the graph prefill") as caught:
                generator.prefill(np.array([[1, unknown]]))
            assert "tokens that the model knows" in (caught.value.hint or "")
        assert np.array_equal(generator.prefill(np.array([[1, 2]])), expected)


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_4_bits_are_refused_where_no_block_is_filled_and_8_are_taken(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's matrices have 32 and 48 rows."""
    monkeypatch.setattr(four_bits, "BLOCK_SIZE", 64)
    rows = np.zeros((2, 48), np.int64)
    with pytest.raises(BuildFailedError, match="none has a multiple of 64 rows") as caught:
        build("tflite-int4-weights", exported, tmp_path / "four", calibration=rows, tuning=rows)
    assert caught.value.hint == "take tflite-int8-dynamic"
    _, built = build("tflite-int8-dynamic", exported, tmp_path / "eight")
    assert built.recipe["matrices"]


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_a_file_that_is_no_model_is_built_again(exported: Path, tmp_path: Path) -> None:
    request, built = build("tflite-fp32", exported, tmp_path / "first")
    (request.directory / built.model_file).write_bytes(b"no model" * 100)
    loading = (built.model_file, built.recipe, request.record, RunSettings(threads=1))
    target = get_target("tflite-fp32")
    with pytest.raises(BadInputError, match="LiteRT cannot load") as caught, target.load(request.directory, *loading):
        pass
    assert "build the artifact again" in (caught.value.hint or "")
    again, _ = build("tflite-fp32", exported, tmp_path / "second")
    with target.load(again.directory, *loading) as generator:
        assert generator.prefill(np.zeros((1, 3), np.int64)).shape == (1, request.record.vocab_size)


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_an_operator_that_is_not_written_here_runs_elsewhere(exported: Path, tmp_path: Path) -> None:
    other, record = tmp_path / "other", load_language(exported)
    shutil.copytree(exported, other)
    model = onnx.load(other / "model.onnx", load_external_data=False)
    sigmoid = next(node for node in model.graph.node if node.op_type == "Sigmoid")
    sigmoid.op_type = "Softplus"
    onnx.save(model, other / "model.onnx")
    with pytest.raises(BuildFailedError, match=f"{sigmoid.name} is a Softplus, which the tflite-") as caught:
        build("tflite-fp32", other, tmp_path / "tflite", record)
    assert "leave the tflite-* targets out" in (caught.value.hint or "")
    _, built = build("ort-fp32", other, tmp_path / "ort", record)
    assert built.model_file == "model.onnx"


@pytest.mark.parametrize("exported", ["llama", pytest.param("mistral", marks=pytest.mark.slow)], indirect=True)
def test_the_program_for_serving_writes_what_the_generator_does(exported: Path, tmp_path: Path) -> None:
    """With windows too: Mistral's are shorter than the prompt."""
    request, built = build("tflite-fp32", exported, tmp_path)
    target = get_target("tflite-fp32")
    prompt = "The kettle boils, and then it does not."
    tokenizer = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    with target.load(
        request.directory, built.model_file, built.recipe, request.record, RunSettings(threads=1)
    ) as generator:
        logits, answer = generator.prefill(np.array([tokenizer.encode(prompt).ids])), []
        while len(answer) < 20 and (token := int(logits[0].argmax())) not in request.record.eos_token_ids:
            answer.append(token)
            logits = generator.step(np.array([token]))
    shutil.copy(exported / "tokenizer.json", request.directory)
    program = target.write_snippet("python", built.model_file, built.recipe, request.record, RunSettings(threads=1))
    assert program is not None
    written = subprocess.run(
        [sys.executable, "-c", program, prompt], cwd=request.directory, capture_output=True, text=True, check=True
    )
    assert tokenizer.decode(answer)
    assert written.stdout == tokenizer.decode(answer) + "\n"
