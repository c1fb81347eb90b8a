"""What the reports and the verdict make of rows on a GPU: known documents, known sentences."""

import csv
import io
import re
from typing import Any

import documents
import pytest
from rich.console import Console

from modelwright.harness.report import render_comparison, render_csv, render_html

gpu, images, judge, make_observed = documents.gpu, documents.images, documents.judge, documents.make_observed


def print_report(document: dict[str, Any], *, width: int = 80, terminal: bool = True, **options: Any) -> str:
    console = Console(file=io.StringIO(), width=width, force_terminal=terminal, color_system=None)
    render_comparison(documents.read(document), console, **options)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def on_gpu_only() -> dict[str, Any]:
    """The GPU's rows, alike and undisturbed, the compiled one as the baseline."""
    document: dict[str, Any] = gpu() | {"baseline": "torch-compile-fp16"}
    document["measurements"] = [row for row in document["measurements"] if row.get("device") == "cuda"]
    for row in document["measurements"]:
        row["gpu"] = make_observed()
        row["settings"] = {"device": "cuda", "cuda_graph": True, "spin": False, "streams": 1, "batch": 1}
    return document


def test_rows_have_the_computation_and_the_memory_in_columns_of_their_own() -> None:
    lines = print_report(gpu(), terminal=False).splitlines()
    assert re.split(r"\s{2,}", lines[0].strip()) == [
        *("target", "size MB", "p50 ms", "p99 ms", "comp ms", "per s", "mem MB", "GPU MB", "J", "acc %", "agree %"),
        *("speed-up", "95% int."),
    ]
    fp16 = next(line for line in lines if " tensorrt-fp16 " in line).split()
    assert fp16[1:9] == ["tensorrt-fp16", "52.1", "0.610", "0.732", "0.420", "1639", "142", "612"]
    cpu = next(line for line in lines if " ort-fp32 " in line).split()
    assert (cpu[4], cpu[7]) == ("-", "-"), "a CPU has no computation apart from its latency"


def test_a_comparison_on_cpus_has_no_column_of_a_gpu() -> None:
    shown = print_report(images(), width=140)
    assert "comp ms" not in shown
    assert "GPU" not in shown
    assert "compute p50" not in render_html(documents.read(images()))


@pytest.mark.parametrize("width", [80, 136, 140])
def test_names_stay_whole_where_the_layout_has_room(width: int) -> None:
    lines = print_report(gpu(), width=width).splitlines()
    assert sum(" torch-compile-fp16 " in line for line in lines[:20]) == 1


def test_two_rows_of_one_title_tell_their_device() -> None:
    titles = {row.target: row.title for row in documents.read(gpu()).measurements}
    assert titles["torch-fp32"] == "PyTorch FP32 on CPU"
    assert titles["torch-fp32 #2"] == "PyTorch FP32 on CUDA"
    assert titles["tensorrt-fp16"] == "TensorRT FP16"


def test_throttled_windows_are_a_warning_with_cause_and_cure() -> None:
    warnings = judge(gpu()).warnings
    found = next(text for text in warnings if "throttled" in text)
    assert found.startswith("The GPU was throttled by its power limit and heat")
    assert "TensorRT FP16 12 of 25" in found
    assert "nvidia-smi -pl" in found
    assert not any("throttled" in text for text in judge(on_gpu_only()).warnings)


def test_other_processes_are_a_warning_and_unknown_ones_are_not() -> None:
    warnings = judge(gpu()).warnings
    assert any("Other processes were on the GPU meanwhile (process 4711 with 700 MB and 4712)" in w for w in warnings)
    document = on_gpu_only()
    document["measurements"][0]["gpu"] = make_observed(other_processes=None, unavailable={"processes": "hidden"})
    assert not any("process" in text for text in judge(document).warnings)
    assert "other processes on the GPU: not known: hidden" in print_report(document, width=140, verbose=True)
    document["measurements"][0]["gpu"] = make_observed(other_processes=[{"pid": 7, "used_bytes": None}])
    assert any("Another process was on the GPU meanwhile (process 7)" in w for w in judge(document).warnings)


def test_settings_that_differ_are_named() -> None:
    warnings = judge(gpu()).warnings
    found = next(text for text in warnings if "CUDA graph" in text)
    assert "TensorRT INT8 and PyTorch FP32 on CUDA ran without a CUDA graph" in found
    assert "TensorRT FP16 and PyTorch compiled FP16 ran with a CUDA graph" in found
    document = on_gpu_only()
    assert not any("alike" in text for text in judge(document).warnings)
    document["measurements"][0]["settings"]["streams"] = 2
    document["measurements"][1]["settings"]["spin"] = True
    warnings = judge(document).warnings
    assert any("PyTorch FP32 ran with 2 streams" in text and "ran with 1 stream" in text for text in warnings)
    assert any("PyTorch compiled FP16 ran polling for results" in text for text in warnings)


def test_an_engine_that_was_not_run_is_named() -> None:
    found = [text for text in judge(gpu()).warnings if "evaluated by ONNX Runtime" in text]
    assert len(found) == 1
    assert "TensorRT-RTX INT8" in found[0]


def test_energies_of_two_scopes_never_stand_in_one_ranking() -> None:
    document = gpu()
    html = render_html(documents.read(document))
    assert "<button type='button'>energy</button><small>J, CPU package</small>" in html
    assert "<button type='button'>energy</button><small>J, GPU board</small>" in html
    assert "Energy, CPU package" in html
    assert "Energy, GPU board" in html
    warning = next(text for text in judge(document).warnings if text.startswith("Energy and carbon are of"))
    assert "the CPU package for ONNX Runtime FP32 and PyTorch FP32 on CPU" in warning
    assert "the GPU board for PyTorch FP32 on CUDA" in warning
    alone = on_gpu_only()
    assert "<button type='button'>energy</button><small>mJ each</small>" in render_html(documents.read(alone))
    assert not any(text.startswith("Energy and carbon are of") for text in judge(alone).warnings)


def test_csv_reduces_within_one_scope_only_and_names_the_card() -> None:
    rows = {row["model_variant"]: row for row in csv.DictReader(io.StringIO(render_csv(documents.read(gpu()))))}
    assert float(rows["torch-fp32"]["energy_reduction_pct"]) == pytest.approx((1 - 2.4 / 1.31) * 100)
    assert rows["tensorrt-fp16"]["energy_reduction_pct"] == ""
    assert rows["tensorrt-fp16"]["carbon_reduction_pct"] == ""
    assert rows["tensorrt-fp16"]["energy_source"] == "measured:nvml"
    assert rows["tensorrt-fp16"]["device"] == "NVIDIA H200"
    assert rows["ort-fp32"]["device"] == "AMD EPYC 9R45, 2 cores"
    # One source, two scopes: an estimate for the CPU and one for the board.
    document = gpu()
    for row in document["measurements"][:-1]:
        row["energy"]["source"] = "estimated:tdp_util"
    rows = {row["model_variant"]: row for row in csv.DictReader(io.StringIO(render_csv(documents.read(document))))}
    assert rows["tensorrt-fp16"]["energy_reduction_pct"] == ""
    assert rows["torch-fp32"]["energy_reduction_pct"] != ""


def test_details_of_a_row_on_a_gpu() -> None:
    shown = print_report(gpu(), terminal=False, verbose=True)
    part = shown.split("TensorRT FP16 (tensorrt-fp16)\n")[1].split("\n\n")[0]
    assert "ran on: cuda (CUDA graph, blocking for results, 1 stream, batch 1)" in part
    assert "computation alone: p50 0.420 ms" in part
    assert "speed-up of the computation: 4.88x of ort-fp32's computation (95 % interval 4.86 to 4.91)" in part
    assert "GPU memory of the process: 612 MB" in part
    assert "SM clock 1455 MHz (1200 to 1980), memory clock 3201 MHz, up to 44 °C" in part
    assert "throttled by its power limit and heat in 48.0 % of the windows" in part
    assert "energy: measured:nvml (GPU board)" in part
    assert "not throttled" in shown.split("PyTorch FP32 on CUDA (torch-fp32 #2)\n")[1].split("\n\n")[0]
    assert "ran on" not in shown.split("ONNX Runtime FP32 (ort-fp32)\n")[1].split("\n\n")[0]
    assert "compute speedup: ort-fp32 ran on the CPU" in shown


def test_page_shows_card_and_computation() -> None:
    html = render_html(documents.read(gpu()))
    assert "on AMD EPYC 9R45, 2 cores &middot; NVIDIA H200 &middot; profile host" in html
    assert "<figcaption>Computation alone" in html
    assert "<figcaption>GPU memory" in html
    assert "NVIDIA H200, compute capability 9.0, memory 151 GB, driver 580.65.06, CUDA 13.0" in html
    assert html.count("<span class='tag device'>CUDA</span>") == 4


def test_int8_on_a_gpu_gets_no_advice_about_the_cpu() -> None:
    document = on_gpu_only()
    document["environment"]["instruction_sets"] = ["avx2"]
    rows = {row["target"]: row for row in document["measurements"]}
    slow = rows["tensorrt-int8"]
    slow["latency_ms"] = {"p50": 0.7}
    slow["speedup"] = {"ratio": 80.0, "ci95": [79.0, 81.0]}
    slow["round_log_ratios"] = [value - 0.2 for value in rows["tensorrt-fp16"]["round_log_ratios"]]
    found = next(text for text in judge(document).warnings if text.startswith("TensorRT INT8 is slower than FP16"))
    assert "too small to fill the GPU" in found
    assert "VNNI" not in found


def test_a_host_that_queues_no_faster_than_the_gpu_computes_is_named() -> None:
    document = on_gpu_only()
    row = next(row for row in document["measurements"] if row["compute_latency_ms"])
    row["compute_enqueue_ms"] = row["compute_latency_ms"]["p50"] * 0.5
    assert not any("waited for the host" in text for text in judge(document).warnings)
    row["compute_enqueue_ms"] = row["compute_latency_ms"]["p50"]
    assert any("waited for the host" in text and "--cuda-graph" not in text for text in judge(document).warnings)
    row["settings"]["cuda_graph"] = False
    assert any("waited for the host" in text and "--cuda-graph" in text for text in judge(document).warnings)


def test_settings_of_a_gpu_stand_in_the_report_only_where_one_was_used() -> None:
    settings = {"threads": 1, "cuda_graph": True, "spin": False, "streams": 2, "effort": "quick", "window_s": 0.1}
    shown = re.sub(r"<[^>]+>", " ", render_html(documents.read(gpu() | {"settings": settings})))
    asked = r"device\s+auto\s+cuda graph\s+yes\s+spin\s+no\s+streams\s+2\s+launches\s+1\s+seconds a window\s+0.1"
    assert re.search(asked, shown)
    assert "cuda graph" not in render_html(documents.read(images() | {"settings": settings}))


def test_estimates_are_named_where_other_rows_were_metered() -> None:
    document = gpu()
    metered = [row for row in document["measurements"] if (row.get("energy") or {}).get("per_inference_j")]
    for row in metered:
        row["energy"]["source"] = "measured:nvml"
    assert not any("are estimates" in text for text in judge(document).warnings)
    metered[0]["energy"]["source"] = "estimated:tdp_util"
    found = next(text for text in judge(document).warnings if "are estimates" in text)
    assert found.startswith("Energy and carbon of ")
    for row in metered:
        row["energy"]["source"] = "estimated:tdp_util"
    found = next(text for text in judge(document).warnings if "are estimates" in text)
    assert found.startswith("Energy and carbon are estimates")
