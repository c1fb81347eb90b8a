"""Runs one model file by its vendor's plain API, as anyone would: `python plain_loop.py SPEC.json`.

It answers lines on standard input: `run SECONDS` with the latencies in milliseconds of a loop that long, `answer FILE`
after writing every output for every sample there. It imports nothing of modelwright.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Feeds = dict[str, Array]
Infer = Callable[[], Sequence[Array]]
WARM_SHARE = 0.1
"""Of a window, before anything counts."""
TIMED_SAMPLES = 8
"""Loops go round these; all are answered."""


def open_onnxruntime(spec: Mapping[str, Any]) -> Callable[[Feeds], Infer]:
    """Returns what prepares the inference of one sample in ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    for name, value in spec["settings"].items():
        options.add_session_config_entry(name, value)
    session = onnxruntime.InferenceSession(spec["file"], options, providers=["CPUExecutionProvider"])
    names = {entry.name for entry in session.get_inputs()}

    def prepare(feeds: Feeds) -> Infer:
        chosen = {name: value for name, value in feeds.items() if name in names}
        return lambda: session.run(None, chosen)

    return prepare


def open_openvino(spec: Mapping[str, Any]) -> Callable[[Feeds], Infer]:
    """Returns what prepares the inference of one sample in OpenVINO, compiled for the shapes of a sample."""
    cast("dict[str, Any]", sys.modules)["openvino_telemetry"] = None  # it would report usage to a server
    import openvino

    core = openvino.Core()
    model = core.read_model(spec["file"])
    shapes = {name: [1, *shape[1:]] for name, shape in spec["shapes"].items()}
    model.reshape({port: shapes[_pick(port.get_names(), shapes)] for port in model.inputs})
    properties = {"PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1, "INFERENCE_NUM_THREADS": 1}
    properties |= {"ENABLE_CPU_PINNING": False, **spec["settings"]}
    compiled = core.compile_model(model, "CPU", properties)
    request = compiled.create_infer_request()

    def prepare(feeds: Feeds) -> Infer:
        types = [(port, _pick(port.get_names(), feeds)) for port in compiled.inputs]
        inputs = {port: np.array(feeds[name], port.get_element_type().to_dtype()) for port, name in types}
        outputs = list(compiled.outputs)

        def infer() -> Sequence[Array]:
            found = request.infer(inputs, share_inputs=True, share_outputs=True)
            return [found[port] for port in outputs]

        return infer

    return prepare


def open_litert(spec: Mapping[str, Any]) -> Callable[[Feeds], Infer]:
    """Returns what prepares the inference of one sample in LiteRT; integers go in and out as the file has them."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=spec["file"], num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()

    def prepare(feeds: Feeds) -> Infer:
        values = []
        for entry in inputs:
            value = feeds[_pick([entry["name"]], feeds)]
            values.append((entry["index"], _quantize(value, entry).reshape(entry["shape"])))

        def infer() -> Sequence[Array]:
            for index, value in values:
                interpreter.set_tensor(index, value)
            interpreter.invoke()
            return [_dequantize(interpreter.get_tensor(entry["index"]), entry) for entry in outputs]

        return infer

    return prepare


def _pick(names: Any, known: Mapping[str, Any]) -> str:
    """Returns which known input a port is: by its name, by one in it, or the only one there is."""
    found = [name for name in known if name in names] or [n for n in known if any(n in name for name in names)]
    return found[0] if found else next(iter(known))


def _quantize(value: Array, entry: Mapping[str, Any]) -> Array:
    scale, zero_point = entry["quantization"]
    if not scale:
        return value.astype(entry["dtype"])
    limits = np.iinfo(entry["dtype"])
    steps: Array = np.clip(np.round(value / scale) + zero_point, limits.min, limits.max).astype(entry["dtype"])
    return steps


def _dequantize(value: Array, entry: Mapping[str, Any]) -> Array:
    scale, zero_point = entry["quantization"]
    real: Array = (value.astype(np.float32) - zero_point) * np.float32(scale) if scale else value
    return real


OPENERS = {"onnxruntime": open_onnxruntime, "openvino": open_openvino, "litert": open_litert}


def run_for(calls: Sequence[Infer], seconds: float) -> list[float]:
    """Returns the latencies in milliseconds of a loop over the prepared samples, its warm-up left out."""
    turn = 0
    start = time.perf_counter()
    while time.perf_counter() < start + WARM_SHARE * seconds or turn == 0:
        calls[turn % len(calls)]()
        turn += 1
    took: list[float] = []
    while time.perf_counter() < start + seconds or not took:
        begin = time.perf_counter()
        calls[turn % len(calls)]()
        took.append(1e3 * (time.perf_counter() - begin))
        turn += 1
    return took


def main() -> None:
    """Opens the file, says so, and obeys."""
    spec = json.loads(Path(sys.argv[1]).read_text())
    arrays = {name: value for name, value in np.load(spec["samples"]).items() if name != "labels"}
    count = min(spec["judged"], len(next(iter(arrays.values()))))
    feeds = [{name: value[row : row + 1] for name, value in arrays.items()} for row in range(count)]
    prepare = OPENERS[spec["runtime"]]({**spec, "shapes": {name: value.shape for name, value in arrays.items()}})
    calls = [prepare(one) for one in feeds[:TIMED_SAMPLES]]
    calls[0]()
    print("ready", flush=True)
    for line in sys.stdin:
        order, argument = line.split(maxsplit=1)
        if order == "run":
            print(json.dumps(run_for(calls, float(argument))), flush=True)
        else:
            answers = [[np.array(value) for value in prepare(one)()] for one in feeds]
            stacked = {
                f"output{place}": np.concatenate(values) for place, values in enumerate(zip(*answers, strict=True))
            }
            np.savez(argument.strip(), **stacked)  # type: ignore[arg-type]
            print("answered", flush=True)


if __name__ == "__main__":
    main()
