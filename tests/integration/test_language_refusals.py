"""What is wrong with a folder of a language model is said before work begins, and doing what is said helps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

pytest.importorskip("transformers")
pytest.importorskip("onnxruntime")

from language_models import make_language_folder, write_gguf
from transformers import LlamaConfig

from modelwright.cli.export import export
from modelwright.core.errors import BadInputError, BuildFailedError, ModelwrightError, UsageError
from modelwright.exporters.language.decoder import Rope
from modelwright.exporters.language.exporting import export_language, write_folder
from modelwright.exporters.language.follows import judge
from modelwright.exporters.language.gguf_file import make_folder
from modelwright.exporters.language.reference import compute_reference
from modelwright.exporters.language.rope import find_rope
from modelwright.exporters.language.safetensors_files import find_weight_files, open_weights
from modelwright.exporters.language.source import is_language_source
from modelwright.exporters.language.worker import hash_gguf, hash_source, require_memory, write_model
from modelwright.exporters.source import parse_source

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers'


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_language_folder(tmp_path_factory.mktemp("language") / "tiny")


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(good, tmp_path / "model"))


def write(folder: Path) -> dict[str, Any]:
    """Exports without comparing, as often as it is asked."""
    out = folder.parent / "written"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    hash_source(str(folder))
    return write_model(str(folder), str(out), lambda _line: None)


def edit_config(folder: Path, **values: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def refuse(folder: Path, expected: str) -> ModelwrightError:
    with pytest.raises(BadInputError, match=expected) as caught:
        write(folder)
    return caught.value


def restore(folder: Path, good: Path, name: str) -> None:
    """Does what `download the folder again` says of a file."""
    shutil.copyfile(good / name, folder / name)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"num_hidden_layers": 10**9}, "num_hidden_layers: expected a whole number of at most 1,000, found 1000000000"),
        ({"num_hidden_layers": "3"}, "num_hidden_layers: expected a whole number"),
        ({"num_hidden_layers": True}, "num_hidden_layers: expected a whole number"),
        ({"vocab_size": -1}, "vocab_size: expected a whole number"),
        ({"vocab_size": 2.5}, "vocab_size: expected a whole number"),
        ({"hidden_size": [32]}, "hidden_size: expected a whole number"),
        ({"num_attention_heads": 0}, "config.json"),
        ({"num_key_value_heads": 3}, "num_key_value_heads: expected a divisor of num_attention_heads, which is 4"),
        ({"head_dim": 7}, "config.json"),
        ({"head_dim": 0}, "head_dim: expected a whole number from 1"),
        ({"rms_norm_eps": "x"}, "config.json"),
        ({"rms_norm_eps": 0.0}, "rms_norm_eps: expected a number greater than 0"),
        ({"hidden_act": "mish"}, "hidden_act: expected one of silu"),
        ({"attention_bias": "yes"}, "config.json"),
        ({"rope_parameters": 3}, "config.json"),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": "x"}}, "rope_theta"),
        ({"max_position_embeddings": 1}, "max_position_embeddings: expected a whole number from 4 to"),
        ({"max_position_embeddings": 10**12}, "max_position_embeddings: expected a whole number of at most"),
    ],
)
def test_a_config_with_values_that_no_model_has_is_refused(
    folder: Path, good: Path, values: dict[str, Any], expected: str
) -> None:
    edit_config(folder, **values)
    refuse(folder, expected)
    restore(folder, good, "config.json")
    write(folder)


def test_a_config_that_is_deep_large_or_no_json_is_refused(folder: Path, good: Path) -> None:
    for content in ("[" * 100_000, '{"a": ' * 500 + "1" + "}" * 500, "[]", "{", "\0", '{"vocab_size": NaN}'):
        (folder / "config.json").write_text(content)
        refuse(folder, "config.json")
    with (folder / "config.json").open("w") as file:
        file.truncate(2**30)
    refuse(folder, "too large")
    restore(folder, good, "config.json")
    write(folder)


def test_code_of_the_folder_never_runs(folder: Path) -> None:
    (folder / "evil.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\n")
    edit_config(
        folder, auto_map={"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model", "AutoTokenizer": "evil.T"}
    )
    fields = write(folder)
    shape = {name: fields[name] for name in ("layers", "kv_heads", "head_dim", "vocab_size", "context_length")}
    compute_reference(str(folder), shape, str(folder / "answers.npz"), low_memory=False, progress=lambda _line: None)
    assert not (folder / "ran").exists()


def test_an_unknown_architecture_is_named_with_those_that_are_known(folder: Path, good: Path) -> None:
    for kind in ("mamba", "deepseek_v3", None, 3):
        edit_config(folder, model_type=kind, architectures=["SomeForCausalLM"])
        refuse(
            folder,
            "SomeForCausalLM.*that are exported: gemma, gemma2, gemma3_text, gpt2, llama, mistral,",
        )
    restore(folder, good, "config.json")
    write(folder)


def test_a_rotary_embedding_that_changes_with_the_text_is_refused(folder: Path) -> None:
    parameters = {"rope_theta": 10000.0, "factor": 2.0}
    edit_config(folder, rope_parameters={"rope_type": "dynamic", **parameters})
    refuse(folder, "rope_type 'dynamic' is not known; known are default, linear, llama3, yarn")
    edit_config(folder, rope_parameters=None)
    write(folder)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"rope_type": "yarn", "factor": "x"}, "factor: expected a number greater than 0, found 'x'"),
        ({"rope_type": "linear", "factor": 0}, "factor: expected a number greater than 0, found 0"),
        ({"rope_type": "linear", "factor": -2.0}, "factor: expected a number greater than 0"),
        ({"rope_type": "yarn", "factor": 1e308}, "factor: expected a number greater than 0"),
        ({"rope_type": "yarn", "factor": 2.0, "beta_slow": -3}, "beta_slow: expected a number greater than 0"),
        ({"rope_type": "yarn", "factor": 2.0, "truncate": 1, "rope_theta": 1.0}, "rope_theta: expected a number above"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": 0.5}, "expected 4 frequencies .* 2 come of"),
        ({"rope_type": "linear", "factor": 2.0, "partial_rotary_factor": "x"}, "computes no frequencies of rope_type"),
    ],
)
def test_numbers_of_a_rotary_embedding_that_make_no_sense_are_refused(values: dict[str, Any], expected: str) -> None:
    """What transformers itself takes without a word, or cannot compute."""
    config = LlamaConfig(hidden_size=32, num_attention_heads=4)

    def find(parameters: dict[str, Any]) -> Rope:
        config.rope_parameters = {"rope_theta": 10000.0, **parameters}
        return find_rope(config, 8, config.rope_parameters)

    with pytest.raises(BadInputError, match=expected):
        find(values)
    assert find({"rope_type": values["rope_type"], "factor": 2.0}).frequencies.shape == (4,)


@pytest.mark.parametrize("given", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "awq"}, {}, "x"])
def test_a_model_that_was_quantized_is_refused_by_its_method(folder: Path, good: Path, given: Any) -> None:
    edit_config(folder, quantization_config=given)
    method = given.get("quant_method", "no method by name") if isinstance(given, dict) else "no method by name"
    refuse(folder, f"quantization_config: the model is quantized already, by {method}")
    edit_config(folder, quantization_config=None)
    write(folder)


def test_a_window_of_one_token_is_refused(tmp_path: Path) -> None:
    """transformers' own cache makes steps see more than that."""
    folder = make_language_folder(tmp_path / "model", "mistral")
    edit_config(folder, sliding_window=1)
    refuse(folder, "sliding_window: expected a whole number from 2 to .*, found 1")
    edit_config(folder, sliding_window=2)
    write(folder)


def test_a_source_that_answers_nonsense_is_blamed_itself() -> None:
    names = ("prefill", "steps", "batch", "batch step", "long cache")
    good = {name: np.ones((1, 1, 9) if name != "steps" else (1, 9), np.float32) for name in names}
    for value in (np.nan, np.inf):
        bad = {**good, "prefill": np.full((1, 1, 9), value, np.float32)}
        with pytest.raises(BadInputError, match="PyTorch itself gives logits that are not finite on a prompt"):
            judge(bad, {**bad, "greedy": np.array([0, 0])})
    assert judge(good, {**good, "greedy": np.array([0, 0])}).equal_tokens == 2


def test_what_is_not_exported_is_taken_out(tmp_path: Path) -> None:
    for kind, values, expected in (
        ("gemma2", {"use_bidirectional_attention": True}, "asks for attention to later tokens"),
        ("gpt2", {"add_cross_attention": True}, "asks for attention over an encoder's output"),
    ):
        folder = make_language_folder(tmp_path / kind / "model", kind)
        edit_config(folder, **values)
        refuse(folder, expected)
        edit_config(folder, **dict.fromkeys(values, False))
        write(folder)


def test_a_folder_without_a_tokenizer_is_given_one(folder: Path, good: Path) -> None:
    (folder / "tokenizer.json").unlink()
    assert "save_pretrained" in str(refuse(folder, r"has no tokenizer\.json").hint)
    restore(folder, good, "tokenizer.json")
    write(folder)


def test_a_generation_config_that_transformers_cannot_read_is_removed(folder: Path) -> None:
    (folder / "generation_config.json").write_text("[")
    refuse(folder, r"generation_config\.json is not a file that transformers reads")
    (folder / "generation_config.json").unlink()
    write(folder)


def test_an_architecture_that_is_no_name_is_not_printed(folder: Path) -> None:
    edit_config(folder, architectures=["\x1b[2JForCausalLM"])
    assert write(folder)["architecture"] == "LlamaConfig"


def test_tokens_outside_the_vocabulary_are_none(folder: Path) -> None:
    (folder / "generation_config.json").unlink()
    edit_config(folder, eos_token_id=[257, 10**6], pad_token_id=-1)
    fields = write(folder)
    assert (fields["eos_token_ids"], fields["pad_token_id"]) == ([257], None)


def test_a_snapshot_of_a_hubs_cache_is_a_folder_and_other_links_are_not(folder: Path, tmp_path: Path) -> None:
    snapshot, blobs = tmp_path / "models--tiny" / "snapshots" / "0123", tmp_path / "models--tiny" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(Path("../../blobs") / str(number))
    assert "tokenizer.json" in write(snapshot)["tokenizer_files"]
    secret = tmp_path / "secret.json"
    secret.write_text("{}")
    (snapshot / "special_tokens_map.json").symlink_to(secret)
    assert "special_tokens_map.json" not in write(snapshot)["tokenizer_files"]
    (snapshot / "tokenizer.json").unlink()
    (snapshot / "tokenizer.json").symlink_to(secret)
    refuse(snapshot, r"has no tokenizer\.json")


def read_tensors(path: Path) -> tuple[dict[str, Any], bytes]:
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def write_tensors(path: Path, header: Any, data: bytes) -> None:
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def split_into_shards(folder: Path) -> list[str]:
    """Makes two files of weights of one, with their index."""
    header, data = read_tensors(folder / "model.safetensors")
    header.pop("__metadata__", None)
    names, files = sorted(header), ["model-1.safetensors", "model-2.safetensors"]
    parts = {files[0]: names[: len(names) // 2], files[1]: names[len(names) // 2 :]}
    for file, own in parts.items():
        write_tensors(folder / file, {name: header[name] for name in own}, data)
    index = {"metadata": {}, "weight_map": {name: file for file, own in parts.items() for name in own}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    (folder / "model.safetensors").unlink()
    return files


def test_a_missing_shard_is_named_and_downloaded(folder: Path) -> None:
    whole = write(folder)
    files = split_into_shards(folder)
    assert write(folder)["files"]["model.onnx.data"] == whole["files"]["model.onnx.data"]
    kept = (folder / files[1]).read_bytes()
    (folder / files[1]).unlink()
    refuse(folder, r"names 2 files of weights, and of these 1 are not in the folder: model-2\.safetensors")
    (folder / files[1]).symlink_to(folder / files[0])
    refuse(folder, r"not in the folder: model-2\.safetensors")
    (folder / files[1]).unlink()
    (folder / files[1]).write_bytes(kept)
    write(folder)


@pytest.mark.parametrize("places", [{}, [], {"a": 3}, {"a": "../secret"}, {"a": "."}, None])
def test_an_index_that_names_no_files_of_the_folder_is_refused(folder: Path, places: Any) -> None:
    files = split_into_shards(folder)
    (folder.parent / "secret").write_bytes((folder / files[0]).read_bytes())
    path = folder / "model.safetensors.index.json"
    kept = path.read_text()
    path.write_text(json.dumps({"weight_map": places}))
    refuse(folder, "weight_map|not in the folder")
    path.write_text(json.dumps({"weight_map": {**json.loads(kept)["weight_map"], "more.weight": files[0]}}))
    refuse(folder, r"lists tensors that its files lack: more\.weight")
    path.write_text(kept)
    write(folder)


def test_pickled_weights_are_saved_again(folder: Path, good: Path) -> None:
    (folder / "model.safetensors").unlink()
    refuse(folder, r"has no weights: expected model\.safetensors")
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    refuse(folder, r"weights in pytorch_model\.bin, which runs code when it is read")
    restore(folder, good, "model.safetensors")
    write(folder)


def damage_header(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        header, data = read_tensors(path)
        write_tensors(path, change(header), data)

    return damage


def change_first(**values: Any) -> Callable[[Path], None]:
    return damage_header(lambda header: {**header, "model.norm.weight": {**header["model.norm.weight"], **values}})


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (lambda path: path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n"), "git-LFS pointer"),
        (lambda path: path.write_bytes(b""), "its header does not fit"),
        (lambda path: path.write_bytes(b"\xff" * 100), "its header does not fit"),
        (lambda path: path.write_bytes((20).to_bytes(8, "little") + b"x" * 30), "its header is no JSON"),
        (lambda path: write_tensors(path, [1], b""), "its header is no object"),
        (lambda path: path.write_bytes(path.read_bytes()[:-10]), "does not lie inside the file"),
        (change_first(data_offsets=[0, 10**12]), "model.norm.weight' does not lie inside"),
        (change_first(data_offsets=[128, 0]), "model.norm.weight' does not lie inside"),
        (change_first(data_offsets=[-128, 0]), "model.norm.weight' does not lie inside"),
        (change_first(shape=[2**40, 2**40]), "model.norm.weight' does not lie inside"),
        (change_first(shape=[-32]), "model.norm.weight' does not lie inside"),
        (change_first(shape="x"), "model.norm.weight' does not lie inside"),
        (change_first(dtype="\x1b[2J"), "model.norm.weight' does not lie inside"),
    ],
)
def test_damaged_weights_are_downloaded_again(
    folder: Path, good: Path, damage: Callable[[Path], None], expected: str
) -> None:
    damage(folder / "model.safetensors")
    refuse(folder, expected)
    restore(folder, good, "model.safetensors")
    write(folder)


def test_weights_of_another_model_are_named(folder: Path, good: Path) -> None:
    edit_config(folder, num_hidden_layers=5)
    refuse(folder, r"lacks 18 of the 47 tensors .*: model\.layers\.3\.input_layernorm\.weight, .* and 14 more")
    edit_config(folder, num_hidden_layers=3, intermediate_size=44)
    refuse(
        folder,
        r"do not fit its config\.json: model\.layers\.0\.mlp\.up_proj\.weight is \[48, 32\], expected \[44, 32\]",
    )
    restore(folder, good, "config.json")
    write(folder)


def test_a_file_that_shrinks_is_downloaded_again(folder: Path, good: Path) -> None:
    tensor = open_weights(folder)["model.embed_tokens.weight"]
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(tensor.offset + 8)
    with pytest.raises(BadInputError, match="became shorter while it was read"):
        tensor.read()
    restore(folder, good, "model.safetensors")
    assert tensor.read().shape == (320, 32)


def test_what_transformers_cannot_load_is_mended(folder: Path, good: Path) -> None:
    shape = {"layers": 3, "kv_heads": 2, "head_dim": 8, "vocab_size": 320, "context_length": 128}

    def compute() -> None:
        compute_reference(str(folder), shape, str(folder / "answers.npz"), low_memory=False, progress=print)

    (folder / "model.safetensors").unlink()
    with pytest.raises(BadInputError, match="cannot be loaded by transformers"):
        compute()
    restore(folder, good, "model.safetensors")
    compute()


def test_quantized_weights_are_replaced_by_those_before(folder: Path, good: Path) -> None:
    damage_header(lambda header: {**header, "model.norm.weight": {**header["model.norm.weight"], "dtype": "F8_E4M3"}})(
        folder / "model.safetensors"
    )
    refuse(folder, "F8_E4M3, expected floats: it is quantized already")
    restore(folder, good, "model.safetensors")
    write(folder)


def test_tensors_that_nothing_reads_are_noted(folder: Path) -> None:
    header, data = read_tensors(folder / "model.safetensors")
    write_tensors(folder / "model.safetensors", {**header, "extra.weight": header["model.norm.weight"]}, data)
    assert write(folder)["notes"] == ["1 tensors in the files belong to nothing that is exported: extra.weight"]


def test_what_lies_at_the_place_is_not_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.write_text("a file")
    with pytest.raises(BadInputError, match="is a file, not a folder"):
        export_language(folder, out)
    out.unlink()
    out.mkdir()
    (out / "thesis.txt").write_text("mine")
    with pytest.raises(BadInputError, match=r"holds thesis\.txt, and no export"):
        export_language(folder, out, overwrite=True)
    assert (out / "thesis.txt").read_text() == "mine"


def test_answers_that_part_from_the_source_fail() -> None:
    random = np.random.default_rng(0)
    shapes = {
        "prefill": (1, 4, 9),
        "steps": (3, 9),
        "batch": (2, 4, 9),
        "batch step": (2, 1, 9),
        "long cache": (1, 1, 9),
    }
    reference: dict[str, Any] = {
        name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()
    }
    chosen = [reference["prefill"][0, -1].argmax(), *reference["steps"].argmax(axis=-1)]
    reference["greedy"] = np.array(chosen)

    def change(name: str, value: float, place: tuple[int, ...]) -> Mapping[str, Any]:
        changed = {key: array.copy() for key, array in reference.items()}
        changed[name][place] += value
        return changed

    assert judge(reference, reference).equal_tokens == 4
    for name, shape in shapes.items():
        with pytest.raises(BuildFailedError, match="its logits are off by"):
            judge(change(name, 0.1, tuple(size - 1 for size in shape)), reference)
    with pytest.raises(BuildFailedError, match="not finite on a batch with padding"):
        judge(change("batch", float("nan"), (0, 0, 0)), reference)
    # Two tokens that the source puts closer together than float32 tells apart.
    first, second = np.argsort(reference["steps"][1])[-2:]
    reference["steps"][1][first] = reference["steps"][1][second] - 1e-6
    found = judge(change("steps", 2e-6, (1, int(first))), reference)
    assert found.equal_tokens == 2
    assert found.near_tie is not None
    assert found.near_tie < 1e-5


def test_files_of_weights_are_listed_with_their_index_first(folder: Path) -> None:
    assert find_weight_files(folder) == ["model.safetensors"]
    files = split_into_shards(folder)
    assert find_weight_files(folder) == ["model.safetensors.index.json", *files]
    assert open_weights(folder)["model.norm.weight"].shape == (32,)


def make_from_gguf(path: Path, place: Path) -> None:
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    make_folder(str(path), str(place), lambda _line: None)


def test_a_gguf_file_that_is_not_read_gives_way_to_the_folder(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path, place = tmp_path / "tiny.gguf", tmp_path / "made"
    path.write_bytes(b"not one")
    with pytest.raises(BadInputError, match="is no GGUF file: it does not begin with GGUF"):
        make_from_gguf(path, place)
    path.write_bytes(b"GGUF" + b"\xff" * 60)
    with pytest.raises(BadInputError, match="is not a GGUF file that transformers reads"):
        make_from_gguf(path, place)
    write_gguf(folder, path, architecture="rwkv6")
    with pytest.raises(BadInputError, match="is not a GGUF file that transformers reads") as caught:
        make_from_gguf(path, place)
    assert "rwkv6" in str(caught.value.detail)
    write_gguf(folder, path)
    for key in (b"llama.attention.head_count_kv", b"llama.rope.dimension_count"):
        content = bytearray(path.read_bytes())
        start = content.index(key) + len(key) + 4
        content[start : start + 4] = bytes(4)
        other = path.with_name("other.gguf")
        other.write_bytes(content)
        with pytest.raises(BadInputError, match="is not a GGUF file that transformers reads"):
            make_from_gguf(other, place)
    write_gguf(folder, path, leave_out="blk.1.ffn_up.weight")
    with pytest.raises(BadInputError, match=r"lacks 1 of the tensors .*: model\.layers\.1\.mlp\.up_proj\.weight"):
        make_from_gguf(path, place)
    write(folder)  # the model's own folder, which the hints name
    write_gguf(folder, path)
    make_from_gguf(path, place)
    made, given = open_weights(place), open_weights(folder)
    assert set(made) == set(given)
    for name, tensor in given.items():
        np.testing.assert_array_equal(made[name].read(), tensor.read())
    assert write(place)["num_parameters"] == write(folder)["num_parameters"]


def test_a_folder_is_made_where_nothing_lies(tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="exists: nothing there is replaced"):
        write_folder(tmp_path / "tiny.gguf", tmp_path)


def test_a_file_that_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    path = tmp_path / "tiny.gguf"
    with pytest.raises(BadInputError, match=r"no such file: .*tiny\.gguf"):
        hash_gguf(str(path))
    assert list(hash_gguf(str(write_gguf(folder, path)))["files"]) == ["tiny.gguf"]


def test_too_little_memory_is_said_with_the_estimate(folder: Path) -> None:
    """A model of 8 GB, whose largest weight has one, on a machine with 5 GB and with 3."""
    sizes = [10**9, *[10**8] * 70]
    with pytest.raises(
        BuildFailedError, match=r"about 8\.7 GB of memory, by estimate, of which 5\.0 GB are free"
    ) as told:
        require_memory(folder, sizes, 5 * 10**9, low_memory=False)
    assert "add --low-memory, which takes about 3.7 GB" in str(told.value.hint)
    require_memory(folder, sizes, 5 * 10**9, low_memory=True)
    with pytest.raises(BuildFailedError, match=r"about 3\.7 GB"):
        require_memory(folder, sizes, 3 * 10**9, low_memory=True)
    require_memory(folder, sizes, 9 * 10**9, low_memory=False)
    require_memory(folder, sizes, None, low_memory=False)


def test_a_language_model_is_not_taken_for_another_source(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInputError, match="is a language model, which is not taken here"):
        parse_source(folder)
    assert is_language_source(folder)
    (tmp_path / "tiny.gguf").write_bytes(b"GGUF")
    with pytest.raises(BadInputError, match="is a language model, which is not taken here"):
        parse_source(tmp_path / "tiny.gguf")
    assert is_language_source(tmp_path / "tiny.gguf")
    edit_config(folder, architectures=["BertForSequenceClassification"])
    assert not is_language_source(folder)


def test_options_that_mean_nothing_are_refused(folder: Path, tmp_path: Path) -> None:
    run = CliRunner().invoke
    for arguments, expected in (
        (
            (str(folder), "-o", str(tmp_path / "o"), "-s", "x.npz"),
            "--samples: not for a language",
        ),
        (("net.onnx", "-o", str(tmp_path / "o.onnx"), "--low-memory"), "--low-memory is for language models"),
    ):
        with pytest.raises(UsageError, match=expected):
            run(export, arguments, catch_exceptions=False, standalone_mode=False)
