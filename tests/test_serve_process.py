"""A real server process on loopback: its command, clients of every kind, and its end."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import httpx2
import numpy as np
import pytest

from gte_np import EmbeddingModel
from gte_np.cli import main
from gte_np.serve.options import add_options, loading
from gte_np.terminal import Parser

DOCUMENT = (Path(__file__).parent.parent / "SERVING.md").read_text("utf-8")
KEY = "a-key-of-the-server"
SECRET = "happysecretperson"
TEXTS = [f"that is a very happy person {number}" for number in range(40)]
# A process whose batches wait for a file, so that requests are surely there when it is asked to end.
GATED = """
import os, sys, time
from gte_np.cli import main
from gte_np.serve.served_model import ServedModel
compute = ServedModel._compute
def wait(*arguments):
    while not os.path.exists(os.environ["GATE"]):
        time.sleep(0.01)
    return compute(*arguments)
ServedModel._compute = wait
sys.exit(main(sys.argv[1:]))
"""

# A process that tells which modules it has imported when it is asked to end.
TELLING = """
import sys
from gte_np.cli import main
main(sys.argv[1:])
print(*sys.modules)
"""


class Server:
    """A process, and its address."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stderr is not None
        self.line = process.stderr.readline()
        assert self.line.startswith("gte-np: serving at "), self.line + process.stderr.read()
        self.address = self.line.split()[-1]
        self.port = int(self.address.rpartition(":")[2]) if self.address.startswith("http") else 0

    def post(self, path: str, **fields: Any) -> Any:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {KEY}"}
        request = Request(self.address + path, json.dumps(fields).encode(), headers)
        with urlopen(request, timeout=20) as answer:
            return json.load(answer)

    def end(self) -> str:
        """Ask it to end, wait, and return what it said since it began to serve."""
        self.process.send_signal(signal.SIGTERM)
        _, said = self.process.communicate(timeout=20)
        assert self.process.returncode == 0, said
        return said


@contextmanager
def serving(*arguments: str | Path, program: str | None = None, **environment: str) -> Iterator[Server]:
    command = [sys.executable, *(["-c", program] if program else ["-m", "gte_np"]), "serve", *map(str, arguments)]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )
    try:
        yield Server(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def server(small_folder: Path) -> Iterator[Server]:
    """It is asked to end last, and must have said nothing: no text, no key, no request."""
    with serving(small_folder, PORT="0", API_KEY=KEY, PAYLOAD_LIMIT="20000", SERVED_MODEL_NAME="small") as server:
        yield server
        assert server.post("/embed", inputs=SECRET)
        assert server.end() == ""


def test_a_process_gives_the_bits_of_encode(server: Server, small: EmbeddingModel) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    assert np.array_equal(np.array(server.post("/embed", inputs=TEXTS), np.float32), small.encode(TEXTS))
    answer = server.post("/v1/embeddings", input=TEXTS, model="small", encoding_format="base64")
    rows = [np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in answer["data"]]
    assert np.array_equal(np.stack(rows), small.encode(TEXTS))


def test_concurrent_clients_get_their_own_vectors(server: Server, small: EmbeddingModel) -> None:
    found: dict[str, Any] = {}

    def ask(text: str) -> None:
        found[text] = server.post("/embed", inputs=text)[0]

    threads = [threading.Thread(target=ask, args=(text,)) for text in TEXTS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert np.array_equal(np.array([found[text] for text in TEXTS], np.float32), small.encode(TEXTS))


def raw(server: Server, *parts: bytes, half_close: bool = False, reset: bool = False) -> bytes:
    """Send the parts, one after the other, and return all that comes back."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
        for part in parts:
            client.sendall(part)
        if reset:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
            return b""
        if half_close:
            client.shutdown(socket.SHUT_WR)
        return b"".join(iter(lambda: client.recv(65536), b""))


def http(body: bytes = b'{"inputs": "happy"}', *, length: int | None = None, last: bool = True) -> bytes:
    lines = [
        "POST /embed HTTP/1.1",
        "Host: localhost",
        f"Authorization: Bearer {KEY}",
        "Content-Type: application/json",
        f"Content-Length: {len(body) if length is None else length}",
        *(["Connection: close"] if last else []),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def test_odd_clients_leave_it_serving(server: Server) -> None:
    """Slow, broken, pipelined, half-closed, oversized: each gets its answer, and others are served meanwhile."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=20) as slow:
        for byte in http(b""):  # byte by byte; the body never comes
            slow.sendall(bytes([byte]))
        assert raw(server, b"no HTTP at all\r\n\r\n").startswith(b"HTTP/1.1 400")
        assert raw(server, http(last=False), http(last=False), http()).count(b"HTTP/1.1 200") == 3
        raw(server, http(), half_close=True)
        raw(server, http(length=100), half_close=True)
        raw(server, http(length=100), reset=True)
        raw(server, http(), reset=True)
        assert raw(server, http(b"x" * 300_000)).startswith(b"HTTP/1.1 413")
        assert raw(server, http(b"{")).startswith(b"HTTP/1.1 400")
        assert raw(server, http().replace(KEY.encode(), b"another")).startswith(b"HTTP/1.1 401")
        assert server.post("/embed", inputs="happy")
    metrics = urlopen(f"{server.address}/metrics", timeout=20).read().decode()
    assert "te_queue_size 0.0" in metrics


def test_unix_socket(small_folder: Path, small: EmbeddingModel, tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for _ in range(2):  # the second time, there is what a killed server left
        with serving(small_folder, "--uds", path) as server:
            assert server.address == f"unix:{path}"
            transport = httpx2.HTTPTransport(uds=str(path))
            with httpx2.Client(transport=transport, timeout=20) as client:
                answer = client.post("http://localhost/embed", json={"inputs": TEXTS})
            assert np.array_equal(np.array(answer.json(), np.float32), small.encode(TEXTS))
        assert path.exists()
    with serving(small_folder, "--uds", path) as server:
        assert server.end() == ""
    assert not path.exists()


def test_a_start_imports_only_what_the_first_request_needs(small_folder: Path, small: EmbeddingModel) -> None:
    with serving(small_folder, "--port", "0", program=TELLING) as server:
        assert np.array_equal(np.array(server.post("/embed", inputs="happy"), np.float32), small.encode(["happy"]))
        server.process.send_signal(signal.SIGTERM)
        out, _ = server.process.communicate(timeout=20)
    imported = set(out.split())
    assert "gte_np.serve.scheduler" in imported
    assert not imported & {"numpy.ma", "anyio._backends._asyncio", "gte_np.explanation", "gte_np.doctor"}


def until(is_so: Callable[[], bool]) -> None:
    """Wait for something that comes soon."""
    end = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("is_asked_to_end", [False, True])
def test_an_overload_passes_and_sigterm_answers_what_was_accepted(
    small_folder: Path, small: EmbeddingModel, tmp_path: Path, is_asked_to_end: bool
) -> None:
    """Eight requests fill the server, eight others are refused; SIGTERM comes while the eight wait."""
    options = ("--port", "0", "--max-concurrent-requests", "8", "--max-batch-tokens", "16")
    gate = tmp_path / "gate"
    with (
        serving(small_folder, *options, program=GATED, GATE=str(gate)) as server,
        httpx2.Client(timeout=20) as client,
    ):
        answers: dict[str, httpx2.Response] = {}

        def ask(text: str) -> None:
            answers[text] = client.post(f"{server.address}/embed", json={"inputs": text})

        threads = [threading.Thread(target=ask, args=(text,)) for text in TEXTS[:16]]
        for thread in threads:
            thread.start()
        until(lambda: len(answers) == 8)
        for answer in answers.values():
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["Retry-After"]) <= 60
            assert answer.json() == {"error": "Model is overloaded", "error_type": "Overloaded"}
        if is_asked_to_end:
            server.process.send_signal(signal.SIGTERM)
        gate.touch()
        for thread in threads:
            thread.join()
        accepted = {text: answer for text, answer in answers.items() if answer.status_code == 200}
        assert (len(accepted), len(answers)) == (8, 16)
        for text, answer in accepted.items():
            assert np.array_equal(np.array(answer.json()[0], np.float32), small.encode(text))
        if is_asked_to_end:
            server.process.communicate(timeout=20)
            assert server.process.returncode == 0
        else:
            assert client.post(f"{server.address}/embed", json={"inputs": "happy"}).status_code == 200


def test_a_client_that_goes_away_is_dropped(small_folder: Path, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    options = ("--port", "0", "--max-batch-tokens", "16")
    with serving(small_folder, *options, program=GATED, GATE=str(gate)) as server:

        def metrics() -> str:
            return str(urlopen(f"{server.address}/metrics", timeout=20).read().decode())

        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as client:
            client.sendall(http(json.dumps({"inputs": TEXTS}).encode()))
            until(lambda: "te_queue_size 1.0" in metrics())
        until(lambda: 'te_request_failure{err="disconnected"} 1.0' in metrics())
        gate.touch()
        server.post("/embed", inputs="happy")
        assert "te_queue_size 0.0" in metrics()
        assert "te_batch_next_size_sum 2.0" in metrics()  # one of the forty, and the last


def test_sessions_in_the_document(minilm_folder: Path) -> None:
    """Each curl of SERVING.md, and its output; the last digits of numbers may differ between processors."""
    sessions = re.findall(r"^\$ (curl .*)\n((?:[^$`].*\n)+)", DOCUMENT, re.MULTILINE)
    assert len(sessions) == 4
    number = r"-?\d+\.\d+"
    with serving(minilm_folder, "--port", "0") as server:
        for command, output in sessions:
            command = command.replace("http://127.0.0.1:3000", server.address)
            done = subprocess.run(["sh", "-c", command], capture_output=True, check=True, text=True, encoding="utf-8")
            assert re.split(number, done.stdout) == re.split(number, output.strip())
            numbers = [[float(found) for found in re.findall(number, text)] for text in (done.stdout, output)]
            assert numbers[0] == pytest.approx(numbers[1], abs=1e-6)


def test_options_in_the_document() -> None:
    """The table names each option that has a variable, with the variable and the default that it has."""
    parser = Parser(parents=[loading()])
    add_options(parser, {})
    documented = {
        flag: (variable, default)
        for flag, variable, default in re.findall(r"^\| `(--[a-z-]+)` \| `(\w+)` \| (.*?) \|", DOCUMENT, re.MULTILINE)
    }
    described = {
        action.option_strings[-1 if "-p" in action.option_strings else 0]: re.findall(
            r"\[env (\w+)", action.help or ""
        )
        for action in parser._actions
        if action.option_strings
    }
    assert {flag: variables[0] for flag, variables in described.items() if variables}.items() <= {
        flag: variable for flag, (variable, _) in documented.items()
    }.items()
    defaults = vars(parser.parse_args([]))
    for flag in (
        "--host",
        "--port",
        *(f"--{name}" for name in ("payload-limit", "auto-truncate", "max-batch-tokens")),
    ):
        assert documented[flag][1].split(" ")[0] == str(defaults[flag[2:].replace("-", "_")]).lower()
    for flag, (variable, _) in documented.items():
        environment = {
            variable: "true"
            if variable.endswith("IDS")
            else "7"
            if variable.endswith(("PORT", "TOKENS", "SIZE", "REQUESTS", "LIMIT"))
            else "false"
        }
        other = Parser(parents=[loading()])
        add_options(other, environment)
        assert vars(other.parse_args([])) != defaults, flag


def test_hosted_by_another_server(small_folder: Path, small: EmbeddingModel) -> None:
    """`app` is an ASGI application that the environment describes."""
    program = (
        "from starlette.testclient import TestClient\nfrom gte_np.serve.app import app\n"
        "with TestClient(app) as client: print(client.post('/embed', json={'inputs': 'happy'}).text)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"MODEL_ID": str(small_folder)},
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert np.array_equal(np.array(json.loads(done.stdout)[0], np.float32), small.encode("happy"))


@pytest.mark.parametrize(
    ("arguments", "environment", "message"),
    [
        ([], {}, "expected a model to serve, got none"),
        (["MODEL", "--max-batch-tokens", "0"], {}, "expected max_batch_tokens to be at least 1, got 0"),
        (["MODEL"], {"API_KEY": ""}, "expected an API key of printable ASCII characters"),
        (["MODEL", "MODEL"], {}, "expected a name of its own for each of 2 models"),
        (["MODEL", "--served-model-name", "a", "--served-model-name", "b"], {}, "for each of 1 models, got a, b"),
        (["MODEL", "--port", "99999"], {}, "expected a port from 0 to 65535, got 99999"),
        (["MODEL", "--host", "192.0.2.1"], {}, "192.0.2.1 port 3000"),
        (["MODEL", "--uds", "/no/such/folder/socket"], {}, "/no/such/folder/socket"),
        (["MODEL", "--uds", "MODEL/config.json"], {}, "config.json"),
        (["/no/such/model", "--port", "0"], {}, "/no/such/model"),
    ],
)
def test_mistakes_are_one_line(
    small_folder: Path,
    arguments: list[str],
    environment: dict[str, str],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["serve", *(argument.replace("MODEL", str(small_folder)) for argument in arguments)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("gte-np: error: ")
    assert said.count("\n") == 1
    assert message in said


def test_options_of_the_environment_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("PORT", "many"), ("AUTO_TRUNCATE", "perhaps"), ("MAX_BATCH_TOKENS", "")):
        with monkeypatch.context() as context:
            context.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main(["serve", "a"])
        assert end.value.code == 2
        assert capsys.readouterr().err.count("\n") == 1


def test_help_does_not_tell_the_key(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("API_KEY", KEY)
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    assert KEY not in capsys.readouterr().out


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("gte_np.serve.server", "gte_np.serve.app", "gte_np.serve.interface"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, "orjson", None)
    assert main(["serve", "a"]) == 2
    said = capsys.readouterr().err
    assert said == (
        "gte-np: error: gte-np serve needs the package orjson, which is not installed: pip install 'gte_np[serve]'.\n"
    )
