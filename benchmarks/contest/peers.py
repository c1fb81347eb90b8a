"""The peers and their documented ways, and running them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contest.entrants import Entrant, Missing
from contest.environments import REQUIREMENTS, NoEnvironmentError, find_or_make

BENCHMARKS = Path(__file__).resolve().parents[1]
TIME_LIMIT_S = 1800.0


@dataclass(frozen=True, kw_only=True)
class Peer:
    """One documented way of one tool.

    Attributes:
        name: As in the table.
        maker: The distribution.
        module: In `recipes`, which is also the name of its requirements.
        recipe: The module's name of the way.
        runtime: That its file is for.
        needs_labels: Whether it judges candidates by accuracy.
    """

    name: str
    maker: str
    module: str
    recipe: str
    runtime: str
    needs_labels: bool = False


def _peer(maker: str, recipe: str, runtime: str, title: str, *, needs_labels: bool = False) -> Peer:
    module = maker.replace("-", "_").replace("olive_ai", "olive").replace("optimum_onnx", "optimum")
    return Peer(name=title, maker=maker, module=module, recipe=recipe, runtime=runtime, needs_labels=needs_labels)


PEERS = (
    _peer("onnxruntime", "static", "onnxruntime", "ORT quantize_static"),
    _peer("onnxruntime", "static-u8s8", "onnxruntime", "ORT quantize_static u8s8 per channel"),
    _peer("onnxruntime", "dynamic", "onnxruntime", "ORT quantize_dynamic"),
    _peer("nncf", "onnx", "onnxruntime", "NNCF quantize, for ORT"),
    _peer("nncf", "onnx-transformer", "onnxruntime", "NNCF quantize TRANSFORMER, for ORT"),
    _peer("olive-ai", "auto", "onnxruntime", "Olive auto-opt int8"),
    _peer("olive-ai", "static", "onnxruntime", "Olive OnnxStaticQuantization"),
    _peer("onnx-neural-compressor", "static", "onnxruntime", "Neural Compressor static"),
    _peer("onnx-neural-compressor", "smoothquant", "onnxruntime", "Neural Compressor SmoothQuant"),
    _peer("onnx-neural-compressor", "dynamic", "onnxruntime", "Neural Compressor dynamic"),
    _peer("optimum-onnx", "static", "onnxruntime", "Optimum avx512_vnni static"),
    _peer("optimum-onnx", "dynamic", "onnxruntime", "Optimum avx512_vnni dynamic"),
    _peer("nncf", "openvino", "openvino", "NNCF quantize"),
    _peer("nncf", "openvino-transformer", "openvino", "NNCF quantize TRANSFORMER"),
    _peer("nncf", "accuracy-control", "openvino", "NNCF quantize_with_accuracy_control", needs_labels=True),
    _peer("ai-edge-quantizer", "static", "litert", "AI Edge Quantizer static_wi8_ai8"),
    _peer("ai-edge-quantizer", "dynamic", "litert", "AI Edge Quantizer dynamic_wi8_afp32"),
)


class PeerFailedError(Exception):
    """A peer gave no file for a model; says why in a line."""


FILES = {"onnxruntime": "*.onnx", "openvino": "*.xml", "litert": "*.tflite"}


def run_peer(
    peer: Peer, model: Path, samples: Path, folder: Path, cache: Path, *, has_labels: bool, threads: int = 2
) -> Entrant | Missing:
    """Has a peer quantize a model, in its own environment.

    Args:
        peer: The tool and its way.
        model: The FP32 ONNX file.
        samples: A `.npz` that it may calibrate on.
        folder: For the result; one of the same model, samples and recipe is taken as it is.
        cache: Folder of environments.
        has_labels: Whether the samples have labels.
        threads: For the work.
    """
    if peer.needs_labels and not has_labels:
        return Missing(name=peer.name, maker=peer.maker, reason="not run: random weights have no accuracy to keep")
    told = folder / "told.json"
    key = _hash_all(model, samples, REQUIREMENTS / f"{peer.module}.txt", BENCHMARKS / "recipes" / f"{peer.module}.py")
    if not told.exists() or json.loads(told.read_text())["key"] != key:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "out").mkdir(parents=True)
        try:
            took_s = _run(peer, model, samples, folder, find_or_make(peer.module, cache), threads)
        except (NoEnvironmentError, PeerFailedError) as error:
            return Missing(name=peer.name, maker=peer.maker, reason=str(error))
        told.write_text(json.dumps({"key": key, "build_s": took_s}))
    files = sorted((folder / "out").glob(FILES[peer.runtime]))
    if not files:
        return Missing(name=peer.name, maker=peer.maker, reason="ends well and leaves no file")
    took_s = json.loads(told.read_text())["build_s"]
    return Entrant(name=peer.name, maker=peer.maker, runtime=peer.runtime, file=files[0], build_s=took_s)


def find_version(module: str, maker: str) -> str:
    """Returns the version of a distribution that a peer's environment is made with."""
    pins = dict(line.split("==") for line in (REQUIREMENTS / f"{module}.txt").read_text().split())
    return pins[maker]


def _hash_all(*paths: Path) -> str:
    return hashlib.sha256(b"".join(hashlib.sha256(path.read_bytes()).digest() for path in paths)).hexdigest()


def _copy_without_shapes(model: Path, copy: Path) -> None:
    """Leaves out the shapes inside the graph: torch writes those of weights too, which ORT's tools then contradict."""
    import onnx

    loaded = onnx.load(model)
    loaded.graph.ClearField("value_info")
    onnx.save(loaded, copy)


def _run(peer: Peer, model: Path, samples: Path, folder: Path, python: Path, threads: int) -> float:
    """Returns the seconds that it took."""
    copy = folder / "fp32.onnx"  # onnx2tf writes into the file that it is given
    _copy_without_shapes(model, copy)
    order = {
        "recipe": peer.recipe, "model": str(copy), "out": str(folder / "out"), "samples": str(samples),
        "threads": threads,
    }  # fmt: skip
    took_s = run_recipe(peer.module, order, folder, python)
    copy.unlink()
    return took_s


def run_recipe(module: str, order: Mapping[str, Any], folder: Path, python: Path) -> float:
    """Runs a module of `recipes` in a peer's environment; returns the seconds that it took.

    Args:
        module: Its name there.
        order: What it reads as its job; `threads` also bounds the pools of its libraries.
        folder: To run in; gets `job.json` and `log.txt`.
        python: Of the environment.

    Raises:
        PeerFailedError: The last line that it printed.
    """
    job = folder / "job.json"
    job.write_text(json.dumps(order))
    environment = {**os.environ, "PYTHONPATH": str(BENCHMARKS), "OMP_NUM_THREADS": str(order["threads"])}
    started = time.monotonic()
    with (folder / "log.txt").open("w") as log:
        try:
            done = subprocess.run(
                [str(python), "-m", f"recipes.{module}", str(job)],
                stdout=log, stderr=subprocess.STDOUT, env=environment, cwd=folder, timeout=TIME_LIMIT_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise PeerFailedError(f"stopped after {TIME_LIMIT_S:.0f} s") from error
    if done.returncode == 0:
        return time.monotonic() - started
    lines = [line for line in (folder / "log.txt").read_text(errors="replace").splitlines() if line.strip()]
    raise PeerFailedError(f"fails: {lines[-1].strip()[:200] if lines else done.returncode}")
