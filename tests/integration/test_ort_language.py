"""Language models in ONNX Runtime follow FP32: whole prompts, token by token, ragged batches, texts that are scored."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from language_models import CONFIGS, make_language_folder

from modelwright.core.errors import BadInputError
from modelwright.core.records.language import LanguageModel, load_language
from modelwright.exporters.language import export_language
from modelwright.targets.language.compensated import CompensatedGrids
from modelwright.targets.language.contract import Generator, LanguageBuildRequest
from modelwright.targets.language.energies import Energy, measure_energies, read_values
from modelwright.targets.language.grids import NearestGrids, group_layers
from modelwright.targets.language.mixture import choose_few
from modelwright.targets.language.own_texts import find_tuning_texts, write_texts
from modelwright.targets.language.perplexity import measure_divergence, measure_loss
from modelwright.targets.language.portable import PortableModel
from modelwright.targets.language.sensitivity import measure_harm
from modelwright.targets.language.smoothing import SmoothedModel
from modelwright.targets.language.table import get_target
from modelwright.targets.options import RunSettings
from modelwright.targets.ort.language.generator import OrtGenerator
from modelwright.targets.ort.language.matrices import FloatMatrices
from modelwright.targets.ort.language.target import OrtLanguageFp32

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")
tokenizers = pytest.importorskip("tokenizers")
Array = np.ndarray[Any, Any]
QUICK = ("llama", "gpt2")
KINDS = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in CONFIGS]
"""Tied and untied heads, windows, biases, norms of heads, and heads too narrow to be rotated by the fused operator."""


@pytest.fixture(scope="module")
def exported(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(request.param)
    make_language_folder(folder / "source", request.param)
    export_language(folder / "source", folder / "model")
    return folder / "model"


def make_request(model: Path, directory: Path, **fields: Any) -> LanguageBuildRequest:
    for name in ("artifact", "scratch", "shared"):
        (directory / name).mkdir()
    values: dict[str, Any] = {"calibration": None, "tuning": None, "threads": 2, **fields}
    return LanguageBuildRequest(
        model=model,
        record=load_language(model),
        source=model,
        directory=directory / "artifact",
        scratch=directory / "scratch",
        shared=directory / "shared",
        progress=lambda line: None,
        **values,
    )


@contextmanager
def build_and_load(name: str, request: LanguageBuildRequest) -> Iterator[Generator]:
    target = get_target(name)
    built = target.build(request)
    with target.load(
        request.directory, built.model_file, built.recipe, request.record, RunSettings(threads=2)
    ) as generator:
        yield generator


class Reference:
    """The portable graph as it is exported."""

    def __init__(self, model: Path, record: LanguageModel) -> None:
        self._session = ort.InferenceSession(str(model / "model.onnx"), providers=["CPUExecutionProvider"])
        self._record = record

    def run(
        self, tokens: Array, mask: Array, past: Mapping[str, Array] | None = None
    ) -> tuple[Array, dict[str, Array]]:
        names = [f"{layer}.{part}" for layer in range(self._record.layers) for part in ("key", "value")]
        empty = np.zeros((len(tokens), self._record.kv_heads, 0, self._record.head_dim), np.float32)
        feeds = {
            "input_ids": tokens,
            "attention_mask": mask,
            "position_ids": np.maximum(mask.cumsum(axis=1) - 1, 0)[:, -tokens.shape[1] :],
            "num_logits": np.array([tokens.shape[1]]),
            **(past or {f"past_key_values.{name}": empty for name in names}),
        }
        logits, *present = self._session.run(None, feeds)
        return logits, {f"past_key_values.{name}": value for name, value in zip(names, present, strict=True)}


def relative_error(found: Array, expected: Array) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("exported", KINDS, indirect=True)
def test_fp32_follows_the_exported_graph(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path)
    reference = Reference(exported, request.record)
    rng = np.random.default_rng(0)
    tokens = rng.integers(0, request.record.vocab_size, (2, 24))
    mask = np.ones_like(tokens)
    mask[1, :7] = 0
    with build_and_load("ort-fp32", request) as generator:
        logits, past = reference.run(tokens, mask)
        assert relative_error(generator.prefill(tokens, mask), logits[:, -1]) < 1e-5
        for _ in range(4):
            step = rng.integers(0, request.record.vocab_size, 2)
            mask = np.concatenate([mask, np.ones((2, 1), mask.dtype)], axis=1)
            logits, past = reference.run(step[:, None], mask, past)
            assert relative_error(generator.step(step), logits[:, -1]) < 1e-5
        assert generator.cache_bytes() == (28 + 21) * request.record.cache_bytes_per_token
        logits, _ = reference.run(tokens, np.ones_like(tokens))
        assert relative_error(generator.score(tokens), logits) < 1e-5
        assert relative_error(generator.prefill(tokens[:1]), logits[:1, -1]) < 1e-5
        assert generator.describe_execution()["operators"]["GroupQueryAttention"] == request.record.layers


@pytest.mark.parametrize("exported", ["llama", pytest.param("qwen2", marks=pytest.mark.slow), "gpt2"], indirect=True)
def test_8_bits_follow_the_exported_graph_in_a_quarter_of_its_size(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path)
    reference = Reference(exported, request.record)
    tokens = np.random.default_rng(0).integers(0, request.record.vocab_size, (2, 24))
    with build_and_load("ort-int8-weights", request) as generator:
        logits, _ = reference.run(tokens, np.ones_like(tokens))
        # Weights and what they are multiplied with have 8 bits; a layer that is wrong gives 1 and more.
        assert relative_error(generator.score(tokens), logits) < 0.15
        assert relative_error(generator.prefill(tokens), logits[:, -1]) < 0.15
        operators = generator.describe_execution()["operators"]
        assert operators["MatMulNBits"] == 4 * request.record.layers + 1
        assert "MatMul" not in operators
        assert operators["GatherBlockQuantized"] == 1
    path = request.directory / "model.onnx"
    graph = onnx.load(path, load_external_data=False)
    apart_bytes = [
        int(entry.value)
        for tensor in graph.graph.initializer
        for entry in tensor.external_data
        if entry.key == "length"
    ]
    # Nothing lies in the file that no node reads: each tensor begins on a page.
    assert path.with_name("model.onnx.data").stat().st_size <= sum(-(-size // 4096) * 4096 for size in apart_bytes)
    stored = [tensor for tensor in graph.graph.initializer if tensor.data_type == onnx.TensorProto.UINT8]
    # By where they lie: a table that is looked up in lies where the head's matrix does.
    sizes = {str(tensor.external_data or tensor.name): int(np.prod(tensor.dims)) for tensor in stored}
    assert len(stored) - len(sizes) == request.record.tied_embeddings
    integers = sum(sizes.values())
    weights = sum(layer.rows * layer.columns for layer in PortableModel(exported).linear_layers.values())
    apart = 0 if request.record.tied_embeddings else request.record.vocab_size * request.record.hidden_size
    padded = weights * 1.4 + apart  # 48 rows fill one and a half blocks of 32
    assert weights + apart <= integers <= padded


def enlarge_channels(exported: Path, folder: Path) -> Path:
    """Copies a model with norms of which three channels are a hundred times as large as they were."""
    shutil.copytree(exported, folder)
    graph = onnx.load(exported / "model.onnx")
    for tensor in graph.graph.initializer:
        if "norm" in tensor.name and tensor.name.endswith("weight"):
            values = onnx.numpy_helper.to_array(tensor).copy()
            values[[3, 8, 21]] *= 100
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
    onnx.save(graph, folder / "model.onnx")
    return folder


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_8_bits_lose_little_by_channels_that_are_much_larger_than_others(exported: Path, tmp_path: Path) -> None:
    model = enlarge_channels(exported, tmp_path / "model")
    texts = np.random.default_rng(0).integers(0, load_language(exported).vocab_size, (3, 24))
    errors = {}
    for name, calibration in (("smooth", texts[:2]), ("plain", None)):
        (tmp_path / name).mkdir()
        request = replace(make_request(exported, tmp_path / name, calibration=calibration), model=model)
        logits, _ = Reference(model, request.record).run(texts[2:], np.ones_like(texts[2:]))
        with build_and_load("ort-int8-weights", request) as generator:
            errors[name] = relative_error(generator.score(texts[2:]), logits)
    assert errors["smooth"] < errors["plain"] / 2, errors


@pytest.mark.parametrize("exported", KINDS, indirect=True)
def test_smoothed_channels_change_no_answer(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path)
    tokens = np.random.default_rng(0).integers(0, request.record.vocab_size, (3, 24))
    model = SmoothedModel(exported, tokens[:2], 2)
    assert len(model.smoothed) >= 2 * request.record.layers
    path = OrtLanguageFp32().write_model(request, model, FloatMatrices(model))
    logits, _ = Reference(exported, request.record).run(tokens[2:], np.ones_like(tokens[2:]))
    generator = OrtGenerator(path, request.record, RunSettings(threads=2))
    assert relative_error(generator.score(tokens[2:]), logits) < 1e-4
    generator.close()


def answer(model: Path, record: LanguageModel, rows: int, length: int) -> Array:
    """Returns texts that the model itself is likely to write: those of random tokens tell nothing of what it loses."""
    reference, rng = Reference(model, record), np.random.default_rng(3)
    tokens = rng.integers(0, record.vocab_size, (rows, 1))
    for _ in range(length - 1):
        logits = reference.run(tokens, np.ones_like(tokens))[0][:, -1].astype(np.float64)
        drawn = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
        tokens = np.concatenate([tokens, drawn[:, None]], axis=1)
    return tokens


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_4_bits_spare_as_many_matrices_as_the_limit_asks_for(exported: Path, tmp_path: Path) -> None:
    texts = answer(exported, load_language(exported), 12, 32)
    shares = {}
    for name, limit in (("strict", 0.0), ("loose", 10.0)):
        (tmp_path / name).mkdir()
        request = make_request(
            exported, tmp_path / name, calibration=texts[:8], tuning=texts[8:], max_perplexity_increase=limit
        )
        built = get_target("ort-int4-weights").build(request)
        search = built.recipe["search"]
        assert search["limit"] == limit
        bits = {found["bits"]: found["layers"] for found in built.recipe["matrices"]}
        nodes = [
            node for node in onnx.load(request.directory / "model.onnx").graph.node if node.op_type == "MatMulNBits"
        ]
        found = [next(a.i for a in node.attribute if a.name == "bits") for node in nodes]
        assert set(found) == set(bits)
        # Of 12 products, three of them for three matrices and three for two, and the head.
        assert len(found) == 4 * request.record.layers + 1
        shares[name] = bits.get(8, 0)
        with get_target("ort-int4-weights").load(
            request.directory, built.model_file, built.recipe, request.record, RunSettings(threads=2)
        ) as generator:
            loss = measure_loss(generator, texts[8:])
            assert np.isfinite(loss)
    assert shares["loose"] == 0, "the head, too, has 4 bits"
    assert shares["strict"] > 0


def measure_noise(matrix: Array, rounded: Array, energy: Energy) -> float:
    """Returns the energy of a layer's error over that of its output, on what it reads; one block holds all channels."""
    (block,) = energy
    error = rounded - matrix
    return float(np.sum(error * (block[0] @ error)) / np.sum(matrix * (block[0] @ matrix)))


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_a_model_writes_the_same_texts_each_time_and_likelier_ones_than_chance(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path, tuning=np.zeros((2, 24), np.int64))
    model = PortableModel(exported)
    texts = find_tuning_texts(request, model)
    assert texts.shape == (2 + 8, 24)
    np.testing.assert_array_equal(texts[:2], request.tuning)
    np.testing.assert_array_equal(texts[2:], write_texts(model, request.record.vocab_size, 24, 1))
    random = np.random.default_rng(0).integers(0, request.record.vocab_size, (8, 24))
    with build_and_load("ort-fp32", request) as generator:
        # Its own predictions are almost even, as those of random weights are; and still it prefers what it drew.
        assert measure_loss(generator, texts[2:]) < measure_loss(generator, random)


@pytest.mark.parametrize("exported", ["llama", "gpt2"], indirect=True)
def test_harm_is_the_divergence_of_a_model_with_one_group_alone_rounded(exported: Path, tmp_path: Path) -> None:
    texts = answer(exported, load_language(exported), 6, 32)
    request = make_request(exported, tmp_path, calibration=texts[:4])
    model = PortableModel(exported)
    few = CompensatedGrids(request, model, choose_few(model), list(model.linear_layers))
    groups = group_layers(model, few.formats)
    harm = measure_harm(few, groups, texts, 1, lambda line: None)
    assert harm.keys() == groups.keys()
    assert min(harm.values()) > 0
    rows = texts[-2:]
    reference = Reference(exported, request.record)
    expected, _ = reference.run(rows, np.ones_like(rows))

    def diverge(logits: Array) -> float:
        return measure_divergence(expected.reshape(-1, expected.shape[-1]), logits.reshape(expected.shape[1] * 2, -1))

    inner, *_, outer = groups.values()
    shutil.copytree(exported, tmp_path / "changed")
    for layer in inner:
        assert not layer.is_turned
        facts = {entry.key: entry.value for entry in model.index.constants[layer.weight].external_data}
        values = np.memmap(
            tmp_path / "changed" / facts["location"],
            np.float32,
            "r+",
            int(facts["offset"]),
            (layer.rows, layer.columns),
        )
        values[:] = few.round_layer(layer).restore()
        values.flush()
    logits, _ = Reference(tmp_path / "changed", request.record).run(rows, np.ones_like(rows))
    assert harm[inner[0].reads] == pytest.approx(diverge(logits), rel=1e-3)
    # The head: where it is the table, what is looked up stays as it is.
    (head,) = outer
    hidden = np.concatenate([values[0] for values in read_values(model, [head.reads], rows, 1)])
    assert harm[head.reads] == pytest.approx(diverge(hidden @ few.round_layer(head).restore()), rel=1e-3)


@pytest.mark.parametrize("exported", ["llama"], indirect=True)
def test_errors_that_are_made_up_for_leave_less_noise_than_the_nearest_levels(exported: Path, tmp_path: Path) -> None:
    texts = answer(exported, load_language(exported), 12, 32)
    request = make_request(exported, tmp_path, calibration=texts[:10])
    model = PortableModel(exported)
    layers = [layer for layer in model.linear_layers.values() if not layer.is_turned]
    few = CompensatedGrids(request, model, choose_few(model), [layer.name for layer in layers])
    nearest = NearestGrids(model, few.formats)
    others = measure_energies(model, {layer.reads: layer.rows for layer in layers}, texts[10:], 2)
    noise = [
        [
            measure_noise(model.read_matrix(layer), grids.round_layer(layer).restore(), others[layer.reads])
            for layer in layers
        ]
        for grids in (few, nearest)
    ]
    # On texts that did not calibrate; these matrices are random, so that what they read goes together little.
    assert np.mean(noise[0]) < 0.9 * np.mean(noise[1])


@pytest.mark.parametrize("exported", ["mistral"], indirect=True)
def test_a_cache_that_is_full_grows_and_forgets_nothing(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("modelwright.targets.ort.language.generator._LEAST_CAPACITY", 2)
    request = make_request(exported, tmp_path)
    tokens = np.random.default_rng(1).integers(0, request.record.vocab_size, (1, 20))
    with build_and_load("ort-fp32", request) as generator:
        scored = generator.score(tokens).copy()
        generator.prefill(tokens[:, :3])
        for place in range(3, 20):
            assert relative_error(generator.step(tokens[:, place]), scored[:, place]) < 1e-5


@pytest.mark.parametrize("exported", ["mistral"], indirect=True)
def test_a_prompt_beyond_the_context_is_refused_and_a_shorter_one_is_not(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path)
    tokens = np.zeros((1, request.record.context_length + 1), np.int64)
    with build_and_load("ort-fp32", request) as generator:
        with pytest.raises(BadInputError, match="129 tokens are more than the context of the model, 128") as caught:
            generator.prefill(tokens)
        assert "shorter prompts, or fewer tokens" in (caught.value.hint or "")
        generator.prefill(tokens[:, :-1])
        with pytest.raises(BadInputError, match="129 tokens"):
            generator.step(tokens[:, 0])


@pytest.mark.parametrize("exported", ["llama", "gpt2"], indirect=True)
def test_the_program_that_is_shown_writes_what_the_generator_does(exported: Path, tmp_path: Path) -> None:
    request = make_request(exported, tmp_path)
    target = get_target("ort-fp32")
    tokenizer = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    prompt = "A cache holds keys and values."
    with build_and_load("ort-fp32", request) as generator:
        logits, answer = generator.prefill(np.array([tokenizer.encode(prompt).ids])), []
        while len(answer) < 20 and (token := int(logits.argmax())) not in request.record.eos_token_ids:
            answer.append(token)
            logits = generator.step(np.array([token]))
    shutil.copy(exported / "tokenizer.json", request.directory)
    program = target.write_snippet("python", "model.onnx", {}, request.record, RunSettings(threads=1))
    written = subprocess.run(
        [sys.executable, "-c", program, prompt], cwd=request.directory, capture_output=True, text=True, check=True
    )
    assert tokenizer.decode(answer)
    assert written.stdout == tokenizer.decode(answer) + "\n"
