"""Results with known answers, as the JSON values of results.json: for the tests of the verdict and of the reports."""

import math
import random
from typing import Any

from msgspec.structs import replace

from modelwright.harness.results.file import decode_results
from modelwright.harness.results.record import SCHEMA, Comparison, Verdict, tell_devices_apart
from modelwright.harness.verdict.judge import judge as judge_comparison

HOSTILE = "\"><script>alert('x')</script>&[red]\x1b[31m\u202eevil"
FORMULA = '=HYPERLINK("http://evil","x")'


def make_row(
    target: str,
    title: str,
    *,
    latency_ms: float,
    ratio: float | None = 1.0,
    spread: float = 0.01,
    rounds: int = 25,
    size_bytes: int | None = 23_400_000,
    accuracy: float | None = None,
    agreement: float | None = None,
    cosine: float | None = None,
    energy: str | None = "estimated:tdp_util",
    **more: Any,
) -> dict[str, Any]:
    """A measured row. `ratio` is its speed against the baseline; each round scatters around it by `spread`."""
    runtime, _, precision = target.partition("-")
    generator = random.Random(target)
    # Symmetric scatter, so that the median of the rounds is the ratio itself.
    half = [abs(generator.gauss(0, spread)) for _ in range(rounds // 2)]
    scatter = [*half, *(-value for value in half), *([0.0] if rounds % 2 else [])]
    logs = [] if ratio is None else [math.log(ratio) + value for value in scatter]
    joules = None if energy is None else latency_ms * 0.012
    row: dict[str, Any] = {
        "target": target,
        "title": title,
        "runtime": runtime,
        "precision": precision,
        "is_float": "int" not in precision,
        "status": "measured",
        "reason": None,
        "hint": None,
        "size_bytes": size_bytes,
        "build_s": 4.2,
        "reused": False,
        "load_ms": 31.0,
        "first_inference_ms": latency_ms * 3,
        "latency_ms": {
            "mean": latency_ms * 1.02,
            "p50": latency_ms,
            "p90": latency_ms * 1.05,
            "p95": latency_ms * 1.08,
            "p99": latency_ms * 1.2,
        },
        "num_inferences": 1200,
        "throughput_per_s": 1000 / latency_ms,
        "peak_memory_bytes": 142_000_000,
        "memory": {"runtime_bytes": 88_000_000, "model_bytes": 54_000_000},
        "accuracy": accuracy,
        "accuracy_ci95": None if accuracy is None else [max(0, accuracy - 0.011), min(1, accuracy + 0.011)],
        "agreement": agreement,
        "cosine": cosine,
        "energy": {
            "per_inference_j": joules,
            "total_j": None if joules is None else joules * 1200,
            "source": energy,
            "reason": None if energy else "no meter",
        },
        "carbon": {
            "per_inference_g": None if joules is None else joules / 3.6e6 * 420,
            "region": "DE",
            "g_per_kwh": 420,
        },
        "speedup": None if ratio is None else {"ratio": ratio, "ci95": [ratio * 0.99, ratio * 1.01]},
        "round_log_ratios": logs,
        "precision_executed": {"precision": precision.removesuffix("-dynamic"), "source": "compiled model"},
        "settings": {"threads": 1},
        "notes": [],
        "unavailable": {},
    }
    return row | more


def make_fidelity(samples: int, outputs: list[dict[str, Any]], agreement: float | None) -> dict[str, Any]:
    """How a row follows FP32, without what its task makes of it."""
    return {
        "samples": samples,
        "outputs": outputs,
        "worst_output": outputs[0]["name"],
        "cosine": outputs[0]["cosine_mean"],
        "agreement": agreement,
        "agreement_reason": None,
    }


def make_unmeasured(target: str, title: str, status: str, reason: str, hint: str | None = None) -> dict[str, Any]:
    runtime, _, precision = target.partition("-")
    return {
        "target": target,
        "title": title,
        "runtime": runtime,
        "precision": precision,
        "is_float": "int" not in precision,
        "status": status,
        "reason": reason,
        "hint": hint,
    }


def make_document(rows: list[dict[str, Any]], *, count: int = 360, labels: bool = False, **more: Any) -> dict[str, Any]:
    document: dict[str, Any] = {
        "schema": SCHEMA,
        "run_id": "20261121-101500-3f2a",
        "timestamp": "2026-11-21T10:15:00+00:00",
        "source": {
            "path": "/models/resnet8.onnx",
            "kind": "onnx",
            "sha256": "ab" * 32,
            "num_parameters": 78_666,
            "opset": 20,
        },
        "samples": {
            "calibration": {"path": "digits.npz", "count": 200, "sha256": "cd" * 32},
            "evaluation": {"path": "digits.npz", "count": count, "sha256": "ef" * 32, "labels": labels},
            "random": False,
        },
        "environment": {
            "device": "AMD EPYC 9R45, 2 cores",
            "cpu_model": "AMD EPYC 9R45",
            "cores": 2,
            "memory_bytes": 25_769_803_776,
            "instruction_sets": ["avx2", "avx512_vnni", "avx512_bf16"],
            "virtual_machine": True,
            "os": "Debian GNU/Linux 12",
            "python": "3.11.9",
            "versions": {"onnxruntime": "1.31.1", "openvino": "2026.4.1", "ai-edge-litert": "2.3.0"},
            "meters": [],
        },
        "profile": "host",
        "baseline": "ort-fp32",
        "effort": "standard",
        "settings": {"threads": 1, "batch": 1, "rounds": 25, "window_s": 0.2, "seed": 7},
        "warnings": [],
        "measurements": rows,
    }
    return document | more


def images() -> dict[str, Any]:
    """Ten targets, all measured, with labels: OpenVINO INT8 wins, TFLite INT8 is faster but loses 15 of 360."""
    ms, ok = 1.0, 356 / 360
    return make_document(
        [
            make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=ms, accuracy=ok, agreement=1.0, cosine=1.0),
            make_row(
                "ort-int8",
                "ONNX Runtime INT8",
                latency_ms=ms / 2.3,
                ratio=2.3,
                size_bytes=6_100_000,
                accuracy=355 / 360,
                agreement=357 / 360,
                cosine=0.9991,
            ),
            make_row(
                "ort-int8-dynamic",
                "ONNX Runtime INT8 dynamic",
                latency_ms=ms * 7,
                ratio=1 / 7,
                size_bytes=6_200_000,
                accuracy=ok,
                agreement=0.994,
                cosine=0.999,
            ),
            make_row(
                "openvino-fp32",
                "OpenVINO FP32",
                latency_ms=ms * 1.01,
                ratio=0.99,
                accuracy=ok,
                agreement=1.0,
                cosine=1.0,
            ),
            make_row(
                "openvino-bf16",
                "OpenVINO BF16",
                latency_ms=ms / 3.9,
                ratio=3.9,
                size_bytes=11_700_000,
                accuracy=ok,
                agreement=359 / 360,
                cosine=0.99996,
            ),
            make_row(
                "openvino-int8",
                "OpenVINO INT8",
                latency_ms=ms / 4.6,
                ratio=4.6,
                size_bytes=6_000_000,
                accuracy=ok,
                agreement=0.994,
                cosine=0.9994,
            ),
            make_row(
                "tflite-fp32", "TFLite FP32", latency_ms=ms * 1.5, ratio=1 / 1.5, accuracy=ok, agreement=1.0, cosine=1.0
            ),
            make_row(
                "tflite-fp16",
                "TFLite FP16",
                latency_ms=ms * 1.5,
                ratio=1 / 1.5,
                size_bytes=11_800_000,
                accuracy=ok,
                agreement=1.0,
                cosine=0.99999,
            ),
            make_row(
                "tflite-int8",
                "TFLite INT8",
                latency_ms=ms / 5.5,
                ratio=5.5,
                size_bytes=5_900_000,
                accuracy=341 / 360,
                agreement=0.95,
                cosine=0.991,
            ),
            make_row(
                "tflite-int8-dynamic",
                "TFLite INT8 dynamic",
                latency_ms=ms * 1.2,
                ratio=1 / 1.2,
                size_bytes=6_000_000,
                accuracy=ok,
                agreement=0.997,
                cosine=0.9995,
            ),
        ],
        labels=True,
    )


def make_operators(*names: str) -> dict[str, Any]:
    """A profile of operators: of each name one in INT8, one in FP32 and one that converts, 3, 2 and 1 µs."""
    kinds = (("compute", "int8", 3.0), ("other", "fp32", 2.0), ("conversion", None, 1.0))
    operators = [
        {"name": name, "type": name, "kind": kind, "precision": precision, "nodes": [name, name], "time_us": time_us,
         "share": time_us / 6 / len(names)}
        for name in names
        for kind, precision, time_us in kinds
    ]  # fmt: skip
    types = [{"count": 1} | {key: one[key] for key in one if key not in ("name", "nodes")} for one in operators]
    return {
        "source": names[0],
        "inferences": 50,
        "inference_us": 10.0 * len(names),
        "operators_us": 6.0 * len(names),
        "count": len(operators),
        "types": types,
        "operators": operators,
        "remedies": [{"type": name, "reason": name, "change": name} for name in names],
    }


def transformer() -> dict[str, Any]:
    """No labels; INT8 is worse, BF16 as fast as INT8; one target skipped, one failed; nulls everywhere."""
    document = make_document(
        [
            make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=33, size_bytes=90_000_000, cosine=1.0, energy=None),
            make_row(
                "ort-int8",
                "ONNX Runtime INT8",
                latency_ms=40,
                ratio=0.82,
                size_bytes=23_000_000,
                agreement=0.81,
                cosine=0.945,
                energy=None,
                operators=make_operators("LayerNormalization", "Gelu", "/bert/encoder/layer.0/intermediate/MatMul" * 4),
            ),
            make_row(
                "openvino-bf16",
                "OpenVINO BF16",
                latency_ms=9.05,
                ratio=3.65,
                spread=0.02,
                size_bytes=45_000_000,
                agreement=0.999,
                cosine=0.99998,
                energy=None,
            ),
            make_row(
                "openvino-int8",
                "OpenVINO INT8",
                latency_ms=9.0,
                ratio=3.66,
                spread=0.02,
                size_bytes=23_000_000,
                agreement=0.991,
                cosine=0.9972,
                energy=None,
            ),
            make_unmeasured(
                "tensorrt-fp16",
                "TensorRT FP16",
                "skipped",
                "package tensorrt>=10 is not installed",
                "pip install 'modelwright[tensorrt]'",
            ),
            make_unmeasured(
                "tflite-int8",
                "TFLite INT8",
                "failed",
                "built, but its outputs do not follow FP32: cosine 0.36",
                "do not ship it",
            ),
        ],
        count=1000,
    )
    for row in document["measurements"][:4]:
        row["latency_ms"]["p99"] = None
        row["unavailable"] = {
            "accuracy": "the evaluation samples have no labels",
            "energy": "no meter",
            "latency_ms.p99": "needs 662 inferences, 410 were timed",
        }
        row["peak_memory_bytes"] = None
        row["memory"] = None
    document["environment"]["instruction_sets"] = ["avx512_vnni", "amx_int8", "amx_bf16"]
    document["environment"]["virtual_machine"] = None
    return document


def single() -> dict[str, Any]:
    return make_document([make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=1.0, agreement=1.0)])


def hostile() -> dict[str, Any]:
    """Names that attack HTML, the terminal and a spreadsheet; nothing but nulls."""
    document = make_document(
        [
            make_row("ort-fp32", HOSTILE, latency_ms=1.0, agreement=1.0, notes=[HOSTILE], energy="measured:" + HOSTILE),
            make_row(
                FORMULA,
                FORMULA,
                latency_ms=0.5,
                ratio=2.0,
                agreement=1.0,
                unavailable={HOSTILE: HOSTILE},
                operators=make_operators(HOSTILE, FORMULA),
            ),
            make_unmeasured("@SUM(1)", HOSTILE * 4, "failed", HOSTILE, HOSTILE),
            make_unmeasured("empty-fp32", "Empty", "measured", "nothing") | {"reason": None},
        ],
        warnings=[HOSTILE],
        run_id=HOSTILE,
        profile=HOSTILE,
    )
    document["source"]["path"] = HOSTILE
    document["environment"] |= {"device": "+" + HOSTILE, "versions": {HOSTILE: HOSTILE}, "os": HOSTILE}
    return document


def make_gpu_row(target: str, title: str, *, latency_ms: float, compute_ms: float, **more: Any) -> dict[str, Any]:
    """A row on CUDA: 35 MB over the bus make the latency longer than the computation."""
    row = make_row(target, title, latency_ms=latency_ms, energy=None, **more)
    runtime, _, precision = target.partition(" ")[0].rpartition("-")
    return row | {
        "runtime": runtime,
        "precision": precision,
        "precision_executed": {"precision": precision, "source": "stand-in"},
        "device": "cuda",
        "compute_latency_ms": {
            "mean": compute_ms * 1.01,
            "p50": compute_ms,
            "p90": compute_ms * 1.02,
            "p95": compute_ms * 1.03,
            "p99": compute_ms * 1.05,
        },
        "compute_throughput_per_s": 1000 / compute_ms,
        "compute_speedup": None,
        "gpu_memory_bytes": 612_368_384,
        "gpu": make_observed(),
        "energy": {
            "per_inference_j": compute_ms * 0.31,
            "total_j": compute_ms * 0.31 * 1200,
            "source": "measured:nvml",
            "scope": "GPU board",
            "reason": None,
        },
        "carbon": {"per_inference_g": compute_ms * 0.31 / 3.6e6 * 420},
        "settings": {"device": "cuda", "cuda_graph": False, "spin": False, "streams": 1, "batch": 1},
        "unavailable": {"compute_speedup": "ort-fp32 ran on the CPU, where a computation is not timed alone"},
    }


def make_observed(**more: Any) -> dict[str, Any]:
    """What `harness.meters.gpu_watch.summarize` returns."""
    observed: dict[str, Any] = {
        "windows": 25,
        "sm_clock_mhz": {"min": 1980, "median": 1980, "max": 1980},
        "memory_clock_mhz": {"min": 3201, "median": 3201, "max": 3201},
        "temperature_c": {"min": 38, "median": 41, "max": 44},
        "power_w": {"min": 300.0, "median": 310.0, "max": 330.0},
        "throttled_share": 0.0,
        "throttle_reasons": {},
        "clock_settings": [],
        "flagged": [],
        "other_processes": [],
        "unavailable": {},
    }
    return observed | more


def gpu() -> dict[str, Any]:
    """CPU and GPU targets side by side: a throttled one, strangers on the card, one emulated and not run here."""
    throttled = make_observed(
        sm_clock_mhz={"min": 1200, "median": 1455, "max": 1980},
        throttled_share=12 / 25,
        throttle_reasons={"SwPowerCap": 11, "HwThermalSlowdown": 1},
        flagged=list(range(3, 15)),
        other_processes=[{"pid": 4711, "used_bytes": 700_000_000}, {"pid": 4712, "used_bytes": None}],
    )
    cpu = {"source": "measured:rapl", "scope": "CPU package", "per_inference_j": 1.31, "reason": None}
    rows = [
        make_row("ort-fp32", "ONNX Runtime FP32", latency_ms=57, agreement=1.0, cosine=1.0) | {"energy": cpu},
        make_row("torch-fp32", "PyTorch FP32", latency_ms=98, ratio=0.58, agreement=1.0, cosine=1.0)
        | {"energy": cpu | {"per_inference_j": 2.4}, "device": "cpu"},
        make_gpu_row(
            "torch-fp32 #2", "PyTorch FP32", latency_ms=2.31, compute_ms=2.05, ratio=24.7, agreement=1.0, cosine=1.0
        ),
        make_gpu_row(
            "torch-compile-fp16",
            "PyTorch compiled FP16",
            latency_ms=1.02,
            compute_ms=0.79,
            ratio=55.9,
            agreement=359 / 360,
            cosine=0.99998,
        )
        | {"settings": {"device": "cuda", "cuda_graph": True, "spin": False, "streams": 1, "batch": 1}},
        make_gpu_row(
            "tensorrt-fp16",
            "TensorRT FP16",
            latency_ms=0.61,
            compute_ms=0.42,
            ratio=93.4,
            size_bytes=52_100_000,
            agreement=359 / 360,
            cosine=0.99997,
        )
        | {
            "gpu": throttled,
            "settings": {"device": "cuda", "cuda_graph": True, "spin": False, "streams": 1, "batch": 1},
            "compute_speedup": {"ratio": 4.88, "ci95": [4.86, 4.91]},
        },
        make_gpu_row(
            "tensorrt-int8",
            "TensorRT INT8",
            latency_ms=0.6,
            compute_ms=0.41,
            ratio=95.0,
            spread=0.03,
            size_bytes=27_000_000,
            agreement=0.992,
            cosine=0.9989,
        )
        | {
            "gpu": make_observed(other_processes=None, unavailable={"processes": "the driver lists no process id"}),
            "gpu_memory_bytes": None,
        },
        make_unmeasured("tensorrt-rtx-int8", "TensorRT-RTX INT8", "skipped", "no GPU that it was built for")
        | {"emulated": True},
    ]
    document = make_document(rows)
    document["environment"]["accelerators"] = [
        {
            "kind": "cuda",
            "name": "NVIDIA H200",
            "compute_capability": "9.0",
            "memory_bytes": 150_754_820_096,
            "driver_version": "580.65.06",
            "cuda_version": "13.0",
        }
    ]
    document["environment"]["virtual_machine"] = False
    return document


def read(document: dict[str, Any]) -> Comparison:
    """Returns the comparison as `assemble_comparison` would have made it."""
    comparison = decode_results(document, where="document")
    return replace(comparison, measurements=tell_devices_apart(comparison.measurements))


def judge(document: dict[str, Any]) -> Verdict:
    return judge_comparison(read(document))


ALL = {"images": images, "transformer": transformer, "single": single, "hostile": hostile, "gpu": gpu}
