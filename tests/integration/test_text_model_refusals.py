"""What folders of models that read texts are refused for; then the hint is followed, and it helps. See `refusals/`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from refusing import refused

pytest.importorskip("torch")
pytest.importorskip("transformers")

import torch
from text_models import add_dense, add_pooling, change_config, make_text_folder

from modelwright.compression.compressing import compress
from modelwright.core.records.codec import encode
from modelwright.core.samples.archives import read_arrays
from modelwright.core.samples.texts.store import store_in_child
from modelwright.core.samples.texts.tokenizer import read_tokenizer
from modelwright.exporters.source import parse_source
from modelwright.exporters.torch.source import load_factory
from modelwright.exporters.trace import Trace
from modelwright.exporters.transformers.loading import load_folder
from modelwright.exporters.transformers.pooling import read_pooling
from modelwright.exporters.transformers.source import describe_inputs, require_no_code
from modelwright.harness.given_samples import add_reader, read_samples

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers'


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_text_folder(tmp_path_factory.mktemp("texts") / "bert", "AutoModel")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "m"))


def _load(folder: Path) -> Any:
    return load_folder(folder, None, Trace(folder), trust=False)


def _place(folder: Path, asked: int | None = None) -> Path:
    made = folder.parent / "samples"
    shutil.rmtree(made, ignore_errors=True)
    made.mkdir()
    texts = folder.parent / "t.txt"
    texts.write_text("Some text.\n")
    model = encode(describe_inputs(folder))
    store_in_child(str(texts), str(folder), model, None, [], asked, str(made), 9, lambda _text: None)
    return made


def _name(folder: Path, architecture: str) -> None:
    change_config(folder, architectures=[architecture])


def _add_odd_layer(folder: Path, **how: str) -> None:
    add_pooling(folder, modules=("Transformer", "Pooling", "Dense"))
    add_dense(folder, {"weight": torch.ones(4, 32)}, **how)


@pytest.mark.parametrize(
    ("spoil", "act", "told"),
    [
        (lambda folder: _name(folder, "BertForMaskedLM"), parse_source, "names the architecture BertForMaskedLM"),
        (lambda folder: change_config(folder, vocab_size=None), parse_source, "has no vocab_size"),
        (lambda folder: change_config(folder, model_type="bort"), _load, "knows no model_type 'bort'"),
        (lambda folder: add_pooling(folder, modules=("Transformer", "WordWeights")), _load, "lists 'WordWeights'"),
        (lambda folder: _add_odd_layer(folder, activation_function="evil.Run"), _load, "asks for 'evil.Run'"),
        (lambda folder: _add_odd_layer(folder, module_input_name="token_embeddings"), _load, "of 'token_embeddings'"),
    ],
)
def test_what_is_not_exported_is_read_by_a_factory(
    folder: Path, spoil: Callable[[Path], None], act: Callable[[Path], Any], told: str
) -> None:
    """The hint's code is run as it is written, on a folder that transformers reads."""
    shutil.copytree(folder, folder.parent / "whole")
    spoil(folder)
    hint = refused(lambda: act(folder), told)
    code = hint.partition("FILE.py:create: ")[2].replace(str(folder), str(folder.parent / "whole"))
    (folder.parent / "net.py").write_text(code)
    source = load_factory(folder.parent / "net.py", "create", None, Trace(folder.parent))
    with torch.inference_mode():
        assert source.module(**source.kwargs)[0].shape[2] == 32


def test_a_model_without_an_attention_mask_is_read_by_a_factory(tmp_path: Path) -> None:
    folder = make_text_folder(tmp_path / "m", "AutoModel", "fnet")
    assert "FILE.py:create: def create()" in refused(lambda: _load(folder), "FNetModel takes no attention_mask")


def test_a_config_without_an_architecture_is_told_one(folder: Path) -> None:
    change_config(folder, architectures=None)
    assert '"BertForSequenceClassification"' in refused(lambda: parse_source(folder), "names no architecture")
    _name(folder, "BertModel")
    assert parse_source(folder).kind == "transformers"


def test_code_of_a_folder_runs_only_where_it_is_trusted(folder: Path) -> None:
    change_config(folder, auto_map={"AutoModel": "evil.Model"})
    (folder / "evil.py").write_text("raise SystemExit('this ran')")
    assert "--trust" in refused(lambda: _load(folder), "auto_map names Python code")
    require_no_code(folder, trust=True)


def test_weights_that_are_missing_are_not_taken_at_random(folder: Path) -> None:
    _name(folder, "BertForSequenceClassification")
    hint = refused(lambda: _load(folder), "lacks 2 weights of its model, such as classifier.bias")
    assert "save_pretrained after it was trained" in hint
    make_text_folder(folder.parent / "trained")
    assert _load(folder.parent / "trained").kwargs


def test_weights_of_other_shapes_are_told_as_transformers_tells_them(folder: Path) -> None:
    change_config(folder, intermediate_size=64)
    assert "AutoModel.from_pretrained" in refused(lambda: _load(folder), "cannot be loaded by transformers")
    change_config(folder, intermediate_size=48)
    assert _load(folder).kwargs


def test_a_shard_that_is_missing_is_named(folder: Path) -> None:
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors").rename(folder / "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "download" in refused(lambda: _load(folder), "model-2.safetensors")


def test_pooling_is_what_sentence_transformers_wrote(folder: Path) -> None:
    (folder / "modules.json").write_text("[1]")
    assert "download" in refused(lambda: read_pooling(folder), "is no list of modules")
    add_pooling(folder, pooling_mode_of_my_own=True)
    assert "download" in refused(lambda: read_pooling(folder), "says none of the ways to pool")
    shutil.rmtree(folder / "1_Pooling")
    assert "download" in refused(lambda: read_pooling(folder), "names 1_Pooling/config.json, which is not there")
    add_pooling(folder, pooling_mode="cls")
    assert (read_pooling(folder).modes, read_pooling(folder).layers) == (("cls",), (None,))


def test_a_layer_behind_the_pooling_has_its_safetensors(folder: Path) -> None:
    add_pooling(folder, modules=("Transformer", "Pooling", "Dense"))
    weights = {"weight": torch.ones(4, 32), "bias": torch.ones(4)}
    assert ".save(folder)" in refused(lambda: _load(folder), "2_Dense/config.json is not there")
    add_dense(folder, weights)
    (folder / "2_Dense/model.safetensors").rename(folder / "2_Dense/pytorch_model.bin")
    assert ".save(folder)" in refused(lambda: _load(folder), "2_Dense/model.safetensors is not there")
    add_dense(folder, weights, in_features=None)
    assert "download" in refused(lambda: _load(folder), "has no in_features and out_features")
    add_dense(folder, weights, out_features=5)
    assert "download" in refused(lambda: _load(folder), "does not hold the layer's weights")
    add_dense(folder, weights)
    assert _load(folder).output_names == ("embedding",)


def test_a_folder_needs_a_tokenizer(folder: Path) -> None:
    shutil.move(folder / "tokenizer.json", folder.parent / "kept.json")
    assert "tokenizer.save_pretrained(folder)" in refused(lambda: _place(folder), "no tokenizer that can be used")
    shutil.move(folder.parent / "kept.json", folder / "tokenizer.json")
    assert read_tokenizer(_place(folder)).encode("x").ids[0] == 256


def test_a_tokenizer_has_a_token_for_padding(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in config.items() if key != "pad_token"}))
    assert "set tokenizer.pad_token" in refused(lambda: _place(folder), "has no token that fills rows up")
    path.write_text(json.dumps(config))
    assert _place(folder)


def test_a_tokenizer_of_another_model_is_replaced(folder: Path) -> None:
    change_config(folder, vocab_size=200)
    assert "save the model's own tokenizer" in refused(lambda: _place(folder), "becomes the token 258")
    change_config(folder, vocab_size=320)
    assert _place(folder)


def test_rows_are_no_longer_than_the_model_takes(folder: Path) -> None:
    assert "give --max-length 64 or less" in refused(lambda: _place(folder, 65), "the model takes 64 tokens at most")
    made, again = _place(folder, 64), folder.parent / "again"
    again.mkdir()
    model, texts = encode(describe_inputs(folder)), str(folder.parent / "t.txt")

    def read(asked: int | None) -> None:
        store_in_child(texts, str(made), model, 64, [], asked, str(again), 9, lambda _text: None)

    assert refused(lambda: read(32), "makes rows of 64 tokens") == "leave it out"
    read(None)
    assert read_arrays(again)["input_ids"].tolist() == read_arrays(made)["input_ids"].tolist()


@pytest.mark.parametrize("named", [None, "acme/tiny@v1"])
def test_what_trains_takes_a_factory(folder: Path, tmp_path: Path, named: str | None) -> None:
    hint = refused(
        lambda: compress(named or str(folder), methods=["prune:magnitude:0.3"], train="x.npz", out=tmp_path / "out"),
        "what trains takes a factory",
    )
    assert "FILE.py:create: def create()" in hint
    assert f"from_pretrained({('acme/tiny' if named else str(folder))!r}" in hint


@pytest.mark.slow
def test_models_of_a_comparison_read_texts_as_the_same_tokens(folder: Path, tmp_path: Path) -> None:
    texts, stored = tmp_path / "t.txt", dict[str, Path]()
    texts.write_text("Some text.\n")
    other = Path(shutil.copytree(folder, tmp_path / "other"))

    def read(model: Path, place: str) -> Path | None:
        samples, _ = add_reader(str(model), str(texts), None)
        return read_samples(
            samples, None, "samples", stored=stored, scratch=tmp_path / place, limit=9, say=lambda _text: None
        )

    assert read(folder, "0") == read(other, "1")
    tokenizer = json.loads((other / "tokenizer.json").read_text())
    tokenizer["post_processor"] = None
    (other / "tokenizer.json").write_text(json.dumps(tokenizer))
    assert "compare each by itself" in refused(lambda: read(other, "2"), "as different tokens")


def test_an_artifact_without_its_tokenizer_is_built_again(folder: Path) -> None:
    made = _place(folder)
    (made / "tokenizer.json").write_text("{}")
    assert "build the artifact again" in refused(lambda: read_tokenizer(made), "cannot be read as a tokenizer")
    assert read_tokenizer(_place(folder))
