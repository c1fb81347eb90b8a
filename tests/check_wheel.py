"""Builds the sdist and the wheel, installs the wheel in a clean environment, and runs the command line from there."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import venv
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEEDED = (
    "modelwright/cli/main.py",
    "modelwright/compression/worker.py",
    "modelwright/core/py.typed",
    "modelwright/examples/digits/model.py",
    "modelwright/examples/digits/samples.npz",
    "modelwright/examples/digits/weights.safetensors",
    "modelwright/harness/report/page.py",
    "modelwright/harness/report/page.css",
    "modelwright/harness/report/page.html.j2",
    "modelwright/harness/report/page.js",
    "modelwright/profiles/builtin/raspberry-pi-5.toml",
    "modelwright/profiles/grid.toml",
    "modelwright/targets/tensorrt/target.py",
    "modelwright/targets/tflite/converter/requirements.txt",
)
UNWANTED = ("tests/", "benchmarks/", "__pycache__", "modelwright/tests", "core/", "targets/")

PAGE = """
from modelwright.harness.report import render_html
from modelwright.harness.results.record import SCHEMA, Comparison, Environment, Samples, Settings, Source

nothing = Comparison(
    schema=SCHEMA, run_id="", timestamp="2026-01-01T00:00:00Z", baseline="ort-fp32", effort="quick", profile="host",
    source=Source(path="model.onnx"), samples=Samples(), environment=Environment(device="board"), settings=Settings(),
    measurements=(),
)
assert "</html>" in render_html(nothing)
"""


def main() -> None:
    """Fails with a message when something is missing."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        run([sys.executable, "-m", "build", "--outdir", str(out / "dist"), str(ROOT)])
        (wheel,) = (out / "dist").glob("*.whl")
        names = zipfile.ZipFile(wheel).namelist()
        missing = [name for name in NEEDED if name not in names]
        unwanted = [name for name in names if name.startswith(UNWANTED) or "__pycache__" in name]
        if missing or unwanted:
            sys.exit(f"{wheel.name}: missing {missing}, unwanted {unwanted}")
        venv.create(out / "env", with_pip=True)
        python = out / "env" / "bin" / "python"
        # As users install it: every file that pip takes has the hash that the lock file says.
        pip = [str(python), "-m", "pip", "install", "-q", "--no-compile"]
        run([*pip, "--require-hashes", "-r", str(ROOT / "requirements.lock")])
        run([*pip, "--no-deps", "--no-index", str(wheel)])
        run([str(python), "-m", "pip", "check"])
        elsewhere = out / "elsewhere"
        elsewhere.mkdir()
        command = str(out / "env" / "bin" / "modelwright")
        for arguments in (["--version"], ["--help"], ["targets"], ["profiles"], ["profiles", "raspberry-pi-5"]):
            run([command, *arguments], cwd=elsewhere)
        run([str(python), "-c", PAGE], cwd=elsewhere)
        print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.1f} MB, command line and report work")


def run(command: list[str], cwd: Path | None = None) -> None:
    """Runs a command; its output is shown only when it fails."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stdout}\n{done.stderr}")


if __name__ == "__main__":
    main()
