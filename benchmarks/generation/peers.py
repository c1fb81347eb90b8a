"""The peers that generate and their documented ways, and having them build."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from contest.entrants import Missing
from contest.environments import REQUIREMENTS, NoEnvironmentError, find_or_make
from contest.peers import BENCHMARKS, PeerFailedError, run_recipe
from generation.entrants import Entrant, measure_model


@dataclass(frozen=True, kw_only=True)
class LanguagePeer:
    """One documented way of one tool.

    Attributes:
        name: As in the table.
        maker: The distribution.
        module: Of its requirements, and in `recipes` where it makes files.
        recipe: The module's name of the way; what quantizes in place as it loads has the runtime's name of it.
        runtime: A module of `runtimes`.
        bits: Of most weights.
        file: That the runtime loads, in the folder that is made; empty for the folder.
        in_place: Whether the runtime quantizes the model's own folder as it loads it.
        note: What else is to be known of its figures.
    """

    name: str
    maker: str
    module: str
    recipe: str
    runtime: str
    bits: int
    file: str = ""
    in_place: bool = False
    note: str = ""


def _genai(recipe: str, bits: int) -> LanguagePeer:
    return LanguagePeer(
        name=f"onnxruntime-genai builder {recipe}", maker="onnxruntime-genai", module="onnxruntime_genai",
        recipe=recipe, runtime="onnxruntime_genai", bits=bits,
    )  # fmt: skip


def _openvino(recipe: str, bits: int) -> LanguagePeer:
    return LanguagePeer(
        name=f"openvino-genai, optimum-intel {recipe}", maker="openvino-genai", module="openvino_genai",
        recipe=recipe, runtime="openvino_genai", bits=bits,
        note="LLMPipeline gives no logits: perplexity is OpenVINO's own, from the same file",
    )  # fmt: skip


def _llama(recipe: str, bits: int) -> LanguagePeer:
    return LanguagePeer(
        name=f"llama.cpp {recipe}", maker="@node-llama-cpp/linux-x64", module="llama_cpp", recipe=recipe,
        runtime="llama_cpp", bits=bits, file="model.gguf", note="the file holds no vocabulary",
    )  # fmt: skip


def _eager(maker: str) -> LanguagePeer:
    return LanguagePeer(
        name=f"{maker} int8 weights", maker=maker, module="eager_quantizers", recipe=maker, runtime="transformers",
        bits=8, in_place=True, note="quantized as it is loaded: no file, and FP32 in its peak memory",
    )  # fmt: skip


PEERS = (
    _genai("int8", 8),
    _genai("int4", 4),
    _openvino("int8", 8),
    _openvino("int4-g128", 4),
    _openvino("int4-g32", 4),
    _llama("q8_0", 8),
    _llama("q4_k_m", 4),
    _llama("q4_0", 4),
    _eager("optimum-quanto"),
    _eager("torchao"),
)


def find_peer_version(peer: LanguagePeer) -> str:
    """Returns the version of a peer's distribution that its environment is made with."""
    for path in (REQUIREMENTS / f"{peer.module}.txt", REQUIREMENTS / f"{peer.module}.npm"):
        for pin in path.read_text().split() if path.exists() else ():
            name, _, version = pin.replace("==", "@").rpartition("@")
            if name == peer.maker:
                return version
    raise LookupError(f"{peer.maker} is not among the requirements of {peer.module}")


def run_language_peer(peer: LanguagePeer, model: Path, key: str, work: Path, cache: Path) -> Entrant | Missing:
    """Has a peer build a model, in its own environment.

    Args:
        peer: The tool and its way.
        model: The folder of transformers.
        key: Hash of its files.
        work: Folder for what peers make of it; what one made of the same model by the same recipe is taken as it is.
        cache: Folder of environments.
    """
    folder = work / "".join(character if character.isalnum() else "-" for character in peer.name)
    try:
        python = find_or_make(peer.module, cache)
        path, build_s = (model, None) if peer.in_place else _build(peer, model, key, folder, python)
    except (NoEnvironmentError, PeerFailedError) as error:
        return Missing(name=peer.name, maker=peer.maker, reason=str(error))
    return Entrant(
        name=peer.name,
        maker=peer.maker,
        runtime=peer.runtime,
        bits=peer.bits,
        path=path,
        python=python,
        identity=identify(peer, key, python),
        settings={"quantizer": peer.recipe} if peer.in_place else {},
        size_bytes=None if peer.in_place else measure_model(path),
        build_s=build_s,
        note=peer.note,
    )


def identify(peer: LanguagePeer, key: str, python: Path) -> str:
    """Returns a hash of all that decides what a peer makes: of two ways of one tool, too."""
    recipe = BENCHMARKS / "recipes" / f"{peer.module}.py"
    parts = [key, peer.recipe, python.parents[1].name, "" if peer.in_place else recipe.read_text()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _build(peer: LanguagePeer, model: Path, key: str, folder: Path, python: Path) -> tuple[Path, float]:
    """Returns what was made, now or earlier, and the seconds that it took."""
    told, out = folder / "told.json", folder / "out"
    identity = identify(peer, key, python)
    if not told.exists() or json.loads(told.read_text())["identity"] != identity:
        shutil.rmtree(folder, ignore_errors=True)
        out.mkdir(parents=True)
        order = {"recipe": peer.recipe, "model": str(model), "out": str(out), "threads": 2}
        took_s = run_recipe(peer.module, order, folder, python)
        told.write_text(json.dumps({"identity": identity, "build_s": took_s}))
    path = out / peer.file if peer.file else out
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        raise PeerFailedError("ends well and leaves no file")
    return path, json.loads(told.read_text())["build_s"]
