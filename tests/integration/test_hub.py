"""Models of a hub, fetched by the real library from a server that speaks the few endpoints that it uses."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from refusing import refused

pytest.importorskip("huggingface_hub")
pytest.importorskip("transformers")

from click.testing import CliRunner
from text_models import add_pooling, make_text_folder

from modelwright.cli.build import build
from modelwright.cli.compare import compare
from modelwright.cli.export import export
from modelwright.cli.mix import mix
from modelwright.cli.study import study
from modelwright.cli.tune import tune
from modelwright.exporters.hub import fetch, is_hub_name, name_snapshot
from modelwright.exporters.source import parse_source
from modelwright.exporters.transformers.pooling import read_pooling
from modelwright.harness.progress import Undisturbed
from modelwright.harness.study.file import read_study
from modelwright.harness.study.places import fetch_models, require_there

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers'

COMMIT, EARLIER = "a" * 40, "b" * 40


class Hub:
    """What a server has, and what it was asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.asked: list[str] = []

    def answer(self, path: str) -> tuple[int, dict[str, str], bytes]:
        """Returns the status, the headers and the body for the path of a URL."""
        self.asked.append(path)
        parts = path.strip("/").split("/")
        if parts[:2] == ["api", "models"]:
            name, what, revision = "/".join(parts[2:4]), *parts[4:6]
            if name == "acme/gated":
                return 403, {"X-Error-Code": "GatedRepo"}, b""
            if name != "acme/tiny":
                return 404, {"X-Error-Code": "RepoNotFound"}, b""
            if revision not in ("main", "v1", COMMIT, EARLIER):
                return 404, {"X-Error-Code": "RevisionNotFound"}, b""
            return 200, {"Content-Type": "application/json"}, json.dumps(self._describe(what, revision)).encode()
        assert parts[:3] == ["acme", "tiny", "resolve"]
        content = self.folder.joinpath(*parts[4:]).read_bytes()
        return 200, {"ETag": f'"{hashlib.sha1(content).hexdigest()}"', "X-Repo-Commit": parts[3]}, content

    def _describe(self, what: str, revision: str) -> Any:
        files = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(self.folder).as_posix() for path in files]
        if what == "tree":
            return [
                {
                    "type": "file",
                    "path": name,
                    "size": path.stat().st_size,
                    "oid": hashlib.sha1(name.encode()).hexdigest(),
                }
                for name, path in zip(names, files, strict=True)
            ]
        commit = EARLIER if revision == "v1" else COMMIT
        return {"id": "acme/tiny", "sha": commit, "tags": [], "siblings": [{"rfilename": name} for name in names]}


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    folder = make_text_folder(tmp_path / "served", "AutoModel")
    add_pooling(folder)
    (folder / "2_Dense").mkdir()
    (folder / "2_Dense/model.safetensors").write_bytes(b"weights")
    (folder / "evil.py").write_text("raise SystemExit")
    (folder / "pytorch_model.bin").write_bytes(b"pickled")
    (folder / "onnx").mkdir()
    (folder / "onnx" / "model.onnx").write_bytes(b"large")
    served = Hub(folder)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = served.answer(urlsplit(self.path).path)
            self.send_response(status)
            for name, value in (*headers.items(), ("Content-Length", str(len(body)))):
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the names that http.server calls

        def log_message(self, *_: Any) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_CACHE", "http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.chdir(tmp_path)
    yield served
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_name_is_told_from_files_and_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here" / "model").mkdir(parents=True)
    assert all(map(is_hub_name, ("acme/tiny", "acme/tiny-1.5@v1", "acme/tiny@refs/pr/1")))
    others = (
        "here/model",
        "models/net.onnx",
        "net.py:create",
        "a/b/c",
        "tiny",
        "../a/b",
        "./acme/tiny",
        "/a/b",
        "a/b@",
    )
    assert not any(map(is_hub_name, others))
    assert name_snapshot(tmp_path) is None


def test_weights_config_and_tokenizer_are_fetched_and_nothing_that_runs(hub: Hub) -> None:
    folder = fetch("acme/tiny")
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "1_Pooling/config.json"} <= names
    assert "2_Dense/model.safetensors" in names
    assert not {"evil.py", "pytorch_model.bin", "onnx/model.onnx"} & names
    source = parse_source(folder)
    assert (source.kind, source.text) == ("transformers", f"acme/tiny@{COMMIT}")
    assert read_pooling(folder).layers == (None,)
    assert name_snapshot(fetch("acme/tiny@v1")) == f"acme/tiny@{EARLIER}"
    hub.asked.clear()
    assert fetch("acme/tiny") == folder
    assert not [path for path in hub.asked if "/resolve/" in path], "what is in the cache is not fetched again"


def test_pickled_weights_are_fetched_where_they_are_trusted_and_there_are_no_others(hub: Hub) -> None:
    (hub.folder / "model.safetensors").unlink()
    assert not (fetch("acme/tiny") / "pytorch_model.bin").exists()
    assert (fetch("acme/tiny", trust=True) / "pytorch_model.bin").read_bytes() == b"pickled"


@pytest.mark.parametrize(
    ("name", "told", "hint"),
    [
        ("acme/none", "has no such model", "check path, name and revision"),
        ("acme/tiny@v9", "has no such model", "check path, name and revision"),
        ("acme/gated", "only to users that its maker let in", "hf auth login"),
    ],
)
def test_what_cannot_be_had_is_told_and_another_name_can(hub: Hub, name: str, told: str, hint: str) -> None:
    assert hint in refused(lambda: fetch(name), told)
    assert hub.asked
    assert fetch("acme/tiny@v1").is_dir()


def test_without_a_network_a_folder_serves_and_so_does_the_cache(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "give the path of a folder" in refused(lambda: fetch("acme/tiny"), "cannot be asked for a model")
    assert not hub.asked
    assert parse_source(hub.folder).kind == "transformers"
    run = CliRunner().invoke(export, ("acme/tiny", "-o", str(tmp_path / "m.onnx")))
    assert "no such source" in str(run.exception)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    folder = fetch("acme/tiny")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert fetch("acme/tiny") == folder


def test_a_model_that_is_none_of_transformers_is_told(hub: Hub) -> None:
    (hub.folder / "config.json").unlink()
    assert "give the name of one" in refused(lambda: fetch("acme/tiny"), "is no model of transformers")


def _write_study(place: Path, source: str) -> Path:
    (place / "texts.txt").write_text("Some text.\n" * 8)
    path = place / "study.toml"
    path.write_text(f'schema = 1\n[samples]\ncalibrate = "texts.txt"\n[variants.first]\nsource = "{source}"\n')
    return path


def test_the_variants_of_a_study_are_fetched(hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write_study(tmp_path, "acme/tiny@v1")
    monkeypatch.chdir("/")
    require_there(read_study(path), path)
    read = fetch_models(read_study(path), path, Undisturbed(None), trust=False)
    assert parse_source(read.variants["first"].source).text == f"acme/tiny@{EARLIER}"
    (tmp_path / "acme" / "tiny@v1").mkdir(parents=True)
    read = fetch_models(read_study(path), path, Undisturbed(None), trust=False)
    assert read.variants["first"].source == "acme/tiny@v1", "what lies beside the study is meant"


@pytest.mark.slow
@pytest.mark.parametrize("command", [build, compare, export, mix, study, tune])
def test_every_command_that_takes_a_model_asks_for_it(hub: Hub, tmp_path: Path, command: Any) -> None:
    texts = () if command is export else ("-s", str(_write_study(tmp_path, "acme/none").parent / "texts.txt"))
    named = (str(tmp_path / "study.toml"),) if command is study else ("acme/none", *texts)
    assert "has no such model" in str(CliRunner().invoke(command, (*named, "-o", str(tmp_path / "out"))).exception)
    assert not (tmp_path / "out").exists()
    assert hub.asked
