"""Who may import whom and what is banned where: architecture.md section 2 and style.md, as tables."""

import re
from dataclasses import dataclass

FUNCTION_LINES = 60
FILE_LINES = 400
PACKAGES = ("rapid", "rapidd", "rapidctl")
FOLDERS = (*PACKAGES, "tests", "bench", "examples", "scripts", "tools")
GENERATED = "rapid/v1/"
WAITS = "tests/wait.py"

ERRORS = "rapid.core.errors"
NOUNS = ("rapid.core.cluster", "rapid.core.facility.nouns", "rapid.core.watched", ERRORS)
SHAPES = (*NOUNS, "rapid.core.settings", "rapid.core.status")
NODE_CORE = ("rapid.core.drift", "rapid.core.excursion", "rapid.core.guard", "rapid.core.vigil")
SHELL = ("rapid.v1", "rapid.wire", "rapid.clock", "rapid.log", "rapid.rpc", "rapid.tls")
DAEMON = (*SHELL, "rapid.config", "rapid.notify", "rapid.scrape", "rapid.streams")
SERVER = ("google", "grpc", "grpc_health", "grpc_reflection", "grpc_status", "prometheus_client", "structlog")


@dataclass(frozen=True, slots=True)
class Area:
    """What the modules below `name` may import, besides the standard library, themselves and the bare `rapid`."""

    name: str
    ours: tuple[str, ...] = ()
    theirs: tuple[str, ...] = ()


# The longest name that fits a module decides; a module that no line foresees may import nothing of ours.
AREAS = (
    Area("rapid"),
    Area("rapid.core"),
    Area("rapid.wire", (*SHAPES, "rapid.core.events", "rapid.core.commands", "rapid.v1"), ("grpc", "google")),
    Area("rapid.sim", ("rapid.core",), ("numpy",)),
    Area("rapid.simgpu", (*NOUNS, "rapid.sim.model.power")),
    Area("rapid.config", (*SHAPES, "rapid.tls"), ("msgspec",)),
    Area("rapid.tls", (ERRORS,), ("grpc",)),
    Area("rapid.rpc", (ERRORS, "rapid.tls", "rapid.wire"), ("google", "grpc", "grpc_health", "grpc_reflection")),
    Area("rapid.log", (ERRORS,), ("structlog",)),
    Area("rapid.streams", (ERRORS, "rapid.rpc"), ("google", "grpc")),
    Area("rapid.facts", (ERRORS, "rapid.core.findings", "rapid.tls")),
    Area(
        "rapid.engine",
        (
            *NOUNS,
            "rapid.core.commands",
            "rapid.core.latency_counter",
            "rapid.core.reconcile",
            "rapid.core.role_change",
            *SHELL,
        ),
        ("grpc",),
    ),
    Area("rapid.scrape", (ERRORS,), ("prometheus_client",)),
    Area("rapid.pages", (*NOUNS, "rapid.core.scraped"), ("prometheus_client",)),
    Area("rapid.notify", (ERRORS,)),
    Area("rapid.clock", (ERRORS,)),
    Area(
        "rapidd",
        (*NOUNS, *NODE_CORE, "rapid.core.findings", "rapid.facts", *DAEMON),
        (*SERVER, "click", "msgspec", "psutil"),
    ),
    Area("rapidd.device", NOUNS, ("pynvml", "amdsmi", "msgspec", "psutil")),
    Area("rapidd.device.sim", (*NOUNS, "rapid.simgpu", "rapidd.device")),
    Area(
        "rapidd.load", (*NOUNS, *DAEMON, "rapid.core.scraped", "rapid.pages", "rapidd.talk"), (*SERVER, "h11", "psutil")
    ),
    Area("rapidctl", (ERRORS, "rapidctl.commands", "rapidctl.output"), ("click",)),
    Area("rapidctl.output", SHAPES, ("click", "msgspec", "rich")),
    Area(
        "rapidctl.client",
        (*SHAPES, "rapid.v1", "rapid.wire", "rapid.config", "rapid.rpc", "rapid.tls"),
        ("google", "grpc"),
    ),
    Area(
        "rapidctl.commands",
        (*SHAPES, "rapid.v1", "rapid.wire", "rapid.config", "rapid.tls", "rapidctl.client", "rapidctl.output"),
        ("click", "grpc", "rich"),
    ),
    Area("rapidctl.commands._findings", (*SHAPES, "rapid.core.findings", "rapidctl.output")),
    Area(
        "rapidctl.commands.doctor",
        (*SHAPES, "rapid.clock", "rapid.core.findings", "rapidctl.commands", "rapidctl.doctor", "rapidctl.output"),
        ("click",),
    ),
    Area(
        "rapidctl.commands.attach",
        (
            *SHAPES,
            "rapid.config",
            "rapid.core.findings",
            "rapid.log",
            "rapid.tls",
            "rapidctl.commands",
            "rapidctl.engines",
            "rapidctl.output",
        ),
        ("click", "msgspec"),
    ),
    Area(
        "rapidctl.doctor",
        (
            *SHAPES,
            *SHELL,
            "rapid.config",
            "rapid.core.findings",
            "rapid.facts",
            "rapidctl.client",
            "rapidctl.controller.peek",
        ),
        ("grpc",),
    ),
    Area(
        "rapidctl.commands.demo",
        (*SHAPES, "rapid.core.policy", "rapid.sim", "rapidctl.commands._verb", "rapidctl.demo", "rapidctl.output"),
        ("click",),
    ),
    Area(
        "rapidctl.commands.sim_gpus",
        (*SHAPES, "rapid.sim", "rapidctl.commands._verb", "rapidctl.demo", "rapidctl.output"),
        ("click",),
    ),
    Area(
        "rapidctl.commands.sim_engine",
        (*SHAPES, "rapid.sim", "rapidctl.commands._verb", "rapidctl.demo", "rapidctl.output"),
        ("click",),
    ),
    Area(
        "rapidctl.demo",
        (
            *SHAPES,
            *DAEMON,
            "rapid.core.slo",
            "rapid.engine",
            "rapid.sim",
            "rapid.simgpu",
            "rapidctl.client",
            "rapidctl.output",
        ),
        ("click", "google", "grpc", "matplotlib", "msgspec", "numpy", "psutil", "rich", "structlog"),
    ),
    Area(
        "rapidctl.sim",
        (
            *SHAPES,
            "rapid.config",
            "rapid.core.policy",
            "rapid.sim",
            "rapidctl.commands._units",
            "rapidctl.commands._verb",
            "rapidctl.demo.picture",
            "rapidctl.output",
        ),
        ("click", "matplotlib", "numpy", "rich"),
    ),
    Area("rapidctl.controller", ("rapid.core", *DAEMON), (*SERVER, "click", "msgspec")),
    Area("rapidctl.controller.mqtt", ("rapid.core", *DAEMON, "rapidctl.controller"), (*SERVER, "aiomqtt", "msgspec")),
    Area(
        "rapidctl.controller.facility",
        ("rapid.core", *DAEMON, "rapidctl.controller"),
        (*SERVER, "cryptography", "jwt", "msgspec"),
    ),
    Area(
        "rapidctl.engines",
        (
            *SHAPES,
            *SHELL,
            "rapid.config",
            "rapid.core.findings",
            "rapid.core.restarts",
            "rapid.core.scraped",
            "rapid.engine",
            "rapid.pages",
            "rapid.streams",
            "rapidctl.client",
        ),
        ("aiohttp", "grpc", "msgspec", "structlog"),
    ),
    # It runs in the environment of Dynamo, where nothing else of ours, nor of what we need, may be asked for.
    Area("rapidctl.engines.dynamo_worker", (), ("dynamo",)),
)

# Core may compute and no more: no clock, dice, files, sockets, tasks or logs can come from these.
CORE_STDLIB = {
    *("__future__", "abc", "bisect", "collections", "dataclasses", "enum", "functools", "heapq", "itertools", "math"),
    *("operator", "statistics", "typing"),
}
# The simulator may also parse what it is given, but neither wait, look at the clock, nor reach outside.
SIM_BANNED = {
    *("asyncio", "concurrent", "http", "logging", "multiprocessing", "os", "secrets", "select", "selectors", "shutil"),
    *("signal", "socket", "ssl", "subprocess", "tempfile", "threading", "time", "urllib", "uuid"),
}
PURE_BANNED_CALLS = {"print", "open", "input", "exec", "eval", "breakpoint", "__import__"}
CLOCK_CALLS = {
    *("time.time", "datetime.datetime.now", "datetime.datetime.utcnow", "datetime.datetime.today"),
    "datetime.date.today",
}
# With an argument these make dice that can be handed on; all else in the two modules rolls a die nobody seeded.
SEEDED_DICE = {"random.Random", "numpy.random.default_rng", "numpy.random.Generator", "numpy.random.SeedSequence"}
DICE = ("random", "numpy.random")
DEVICE_LIBRARIES = {"pynvml": "rapidd/device/nvml.py", "amdsmi": "rapidd/device/amdsmi.py"}
UNFINISHED = re.compile(r"\b(TOD[O]|FIXM[E]|HAC[K])\b")
