"""NVIDIA Dynamo's own frontend, router and mocker as processes on loopback; each worker under our wrapper.

Needs `make dynamo`. Nothing but these processes is Dynamo's: the model is a tokenizer of 4,096 words, and discovery is
a folder.
"""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rapid.core.cluster import Role
from rapidctl.engines.dynamo_worker.words import PORT_MAX
from tests.engines.ports import free_port
from tests.wait import wait_for

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-dynamo" / "bin" / "python"
MISSING = "" if PYTHON.exists() else "NVIDIA Dynamo is not here: run `make dynamo`"
MODEL = "tiny"
WORDS = 4096  # of the vocabulary; the mocker answers with numbers 1,000 to 2,000
WITHIN_S = 30.0
LOOPBACK = ("DYN_TCP_RPC_HOST", "DYN_TCP_RESPONSE_STREAM_HOST", "DYN_EVENT_PLANE_HOST")
_REGISTERED = re.compile(
    r'^dynamo_component_router_worker_registered\{.*router_worker_id="(\d+)".*worker_type="(\w+)"\} 1$', re.MULTILINE
)
_COMPONENT = re.compile(
    r'^dynamo_component_inflight_requests\{dynamo_component="(\w+)",dynamo_endpoint="generate"', re.MULTILINE
)


def write_model(folder: Path) -> Path:
    """A model without weights: one word is one token, "w17" has number 17."""
    folder.mkdir()
    special = ("<unk>", "<s>", "</s>")
    vocabulary = {word: number for number, word in enumerate((*special, *(f"w{n}" for n in range(3, WORDS))))}
    added = [
        {"id": number, "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False}
        | {"normalized": False}
        for number, word in enumerate(special)
    ]
    files: dict[str, dict[str, Any]] = {
        "config.json": {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 32768,
            "vocab_size": WORDS,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "torch_dtype": "bfloat16",
        },
        "generation_config.json": {"bos_token_id": 1, "eos_token_id": 2},
        "tokenizer.json": {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": added,
            "normalizer": None,
            "pre_tokenizer": {"type": "WhitespaceSplit"},
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": special[0]},
        },
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": special[1],
            "eos_token": special[2],
            "unk_token": special[0],
            "model_max_length": 32768,
            "chat_template": "{% for message in messages %}{{ message['content'] }} {% endfor %}",
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    return folder


@dataclass
class Process:
    """One process that can be killed and started again with the same words."""

    name: str
    command: Sequence[str]
    env: dict[str, str]
    log: Path
    running: "subprocess.Popen[bytes] | None" = None

    def start(self) -> None:
        with self.log.open("ab") as out:
            out.write(f"$ {shlex.join(self.command)}\n".encode())
            out.flush()
            self.running = subprocess.Popen(
                self.command, cwd=ROOT, env=self.env, stdin=subprocess.DEVNULL, stdout=out, stderr=out
            )

    def kill(self) -> None:
        """kill -9."""
        assert self.running is not None
        self.running.kill()
        self.running.wait(WITHIN_S)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self.running is not None
        self.running.send_signal(signal.SIGTERM)
        return self.running.wait(WITHIN_S)

    @property
    def alive(self) -> bool:
        return self.running is not None and self.running.poll() is None


@dataclass
class Worker:
    """One worker: its process, and where it is asked."""

    name: str
    process: Process
    control: Path
    system_port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.system_port}"

    def say(self, do: str, **more: str) -> dict[str, Any]:
        """One order over the control socket, as anybody may give it."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(WITHIN_S)
            line.connect(str(self.control))
            line.sendall(json.dumps({"do": do, **more}).encode() + b"\n")
            answer: dict[str, Any] = json.loads(line.makefile().readline())
            return answer

    @property
    def id(self) -> str:
        """In Dynamo; empty while it cannot tell how it is."""
        return str(self.say("state").get("worker", ""))

    def component(self) -> str:
        """The role in which the engine itself counts its requests, by its own page."""
        found = _COMPONENT.search(page(f"{self.url}/metrics"))
        return "" if found is None else found[1]


class Cluster:
    """A frontend, and workers that begin in these roles. `engines` are words for mockers that begin in a role.

    `held`: they are built by tests.engines.dynamo_held, and stop where the test holds them. `stock`: they are Dynamo's
    own mockers, without anything of ours.
    """

    def __init__(
        self,
        folder: Path,
        roles: Sequence[Role],
        *,
        engines: Mapping[Role, Sequence[str]] | None = None,
        held: bool = False,
        stock: bool = False,
    ) -> None:
        self.folder, self._held, self._stock = folder, held, stock
        folder.mkdir(exist_ok=True)
        self._model = write_model(folder / "model")
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.frontend = self._process("frontend", "dynamo.frontend", *self._frontend_words())
        self.workers = [
            self._worker(f"w{number}", role, (engines or {}).get(role, ())) for number, role in enumerate(roles)
        ]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def _start(self) -> None:
        for process in (self.frontend, *(worker.process for worker in self.workers)):
            process.start()
        wait_for(self._all_there, WITHIN_S, "every worker at the frontend")
        wait_for(self.serves, WITHIN_S, "a first answer")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in (*(worker.process for worker in self.workers), self.frontend):
            if process.alive:
                process.kill()

    def hold(self, name: str, step: str) -> None:
        """From now on the worker stops there, for as long as it is not let go."""
        self._hold(name).joinpath(step).touch()

    def let_go(self, name: str) -> None:
        for file in self._hold(name).iterdir():
            file.unlink()

    def stopped_at(self, name: str) -> str:
        """Where the worker stands still."""
        return next((file.suffix[1:] for file in self._hold(name).glob("at.*")), "")

    # ---- what the frontend knows ----

    def registered(self) -> dict[str, str]:
        """The role in which its router has each worker, by its own metric."""
        return dict(_REGISTERED.findall(page(f"{self.url}/metrics")))

    def role_of(self, worker: Worker) -> Role | None:
        """As the frontend's metric has it; None: in no role."""
        role = self.registered().get(worker.id)
        return None if role is None else Role(role)

    def serves(self) -> bool:
        """Whether a request of one token is answered."""
        body = {"model": MODEL, "max_tokens": 1, "messages": [{"role": "user", "content": "w3"}]}
        call = urllib.request.Request(
            f"{self.url}/v1/chat/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(call, timeout=5.0) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    # ---- inside ----

    def _all_there(self) -> bool:
        try:
            return len(self.registered()) == len(self.workers)
        except OSError:
            return False  # not up yet

    def _process(self, name: str, module: str, *words: str, **more: str) -> Process:
        env = {
            **os.environ,
            **dict.fromkeys((*LOOPBACK, "DYN_SYSTEM_HOST", "DYN_HTTP_RPC_HOST"), "127.0.0.1"),
            "HOME": str(self.folder / "home"),  # it keeps model cards there
            "DYN_DISCOVERY_BACKEND": "file",
            "DYN_FILE_KV": str(self.folder / "kv"),
            "DYN_REQUEST_PLANE": "tcp",
            "DYN_EVENT_PLANE": "zmq",
            "DYN_LOG": "warn",
            "HF_HUB_OFFLINE": "1",
            "PYTHONPATH": str(ROOT),
            **more,
        }
        (self.folder / "home").mkdir(exist_ok=True)
        return Process(name, [str(PYTHON), "-m", module, *words], env, self.folder / f"{name}.log")

    def _hold(self, name: str) -> Path:
        folder = self.folder / f"hold-{name}"
        folder.mkdir(exist_ok=True)
        return folder

    def _frontend_words(self) -> list[str]:
        # With a limit of 0, its default, Dynamo (1.6.1) loses a request for which it has chosen a worker in the very
        # millisecond in which that is withdrawn: with several flips a second, one in a few hundred requests.
        retries = ["--migration-limit", "2"]
        return ["--http-host", "127.0.0.1", "--http-port", str(self.port), "--router-mode", "kv", *retries]

    def _worker(self, name: str, role: Role, engine: Sequence[str]) -> Worker:
        control, port = self.folder / f"{name}.sock", free_port(PORT_MAX + 1)
        words = ["--model-path", str(self._model), "--model-name", MODEL, "--disaggregation-mode", role.value]
        words += ["--bootstrap-ports", str(free_port()), *engine]
        module = "rapidctl.engines.dynamo_worker"
        if self._stock:
            process = self._process(name, "dynamo.mocker", *words, DYN_SYSTEM_PORT=str(port))
            return Worker(name, process, control, port)
        own = ["--control", str(control)] + (["--engine", "tests.engines.dynamo_held:build"] if self._held else [])
        process = self._process(name, module, *own, "--", *words, DYN_SYSTEM_PORT=str(port), HOLD=str(self._hold(name)))
        return Worker(name, process, control, port)


def page(url: str) -> str:
    """Raises OSError."""
    with urllib.request.urlopen(url, timeout=5.0) as answer:
        return str(answer.read().decode())
