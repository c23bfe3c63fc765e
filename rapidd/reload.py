"""SIGHUP: read the configuration again, take what can change under way, and say what cannot."""

import asyncio
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from rapid import log
from rapid.config import NodeConfig, load_node_config
from rapid.core.errors import RapidError

READ_TIMEOUT_S = 5.0


async def reload(config: NodeConfig, path: Path, logger: FilteringBoundLogger) -> NodeConfig:
    """The configuration from now on: the one in use, with the [log] of the file. A bad file changes nothing."""
    try:
        async with asyncio.timeout(READ_TIMEOUT_S):
            new = await asyncio.to_thread(load_node_config, path)
    except (RapidError, TimeoutError) as error:
        logger.error("configuration kept", detail=str(error) or f"{path} could not be read within {READ_TIMEOUT_S:g} s")
        return config
    log.configure(new.log.level, new.log.format)
    waiting = [key for key in changed_keys(config, new) if not key.startswith("log.")]
    if waiting:
        logger.warning("configuration needs a restart", keys=waiting, detail="only [log] is taken while rapidd runs")
    logger.info("configuration read", level=new.log.level)
    return msgspec.structs.replace(config, log=new.log)


def changed_keys(old: NodeConfig, new: NodeConfig) -> list[str]:
    """The keys whose values differ, as an operator writes them; a table of paths counts as one key."""
    keys: list[str] = []
    for name in NodeConfig.__struct_fields__:
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if not isinstance(before, msgspec.Struct):
            keys.append(name)
            continue
        for field in msgspec.structs.fields(before):
            if getattr(before, field.name) != getattr(after, field.name):
                keys.append(f"{name}.{field.encode_name}")
    return keys
