"""The tables that both configurations have."""

from msgspec import Struct

from rapid.config.parse import check_one_of
from rapid.core.errors import ConfigInvalid
from rapid.tls import UNIX, TlsConfig, check_address, check_listen, is_local

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "console", "json")


class LogTable(Struct, frozen=True):
    """How much is logged, and how: `auto` is console on a terminal and json otherwise."""

    level: str = "info"
    format: str = "auto"


def check_shared(log: LogTable, tls: TlsConfig | None, *, address: str, metrics: str) -> None:
    """Raise ConfigInvalid for a bad value in [log], or for an address in [listen] that may not be listened on."""
    check_one_of(log.level, LEVELS, "log.level")
    check_one_of(log.format, FORMATS, "log.format")
    check_listen(address, tls, "listen.address")
    if metrics:
        _check_metrics(metrics)


def _check_metrics(address: str) -> None:
    check_address(address, "listen.metrics")
    if address.startswith(UNIX) or not is_local(address):
        problem = f"metrics are plain HTTP and only for this host, as on 127.0.0.1:9601 ('': off); {address} is not"
        raise ConfigInvalid("listen.metrics", problem)
