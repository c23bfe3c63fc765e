"""TOML files to frozen structs, read once at the start; every error is a ConfigInvalid naming the key."""

from rapid.config.controller import ControllerConfig, load_controller_config, parse_controller_config
from rapid.config.node import NodeConfig, load_node_config, parse_node_config
from rapid.config.units import format_duration, format_power, parse_duration, parse_power

__all__ = [
    "ControllerConfig",
    "NodeConfig",
    "format_duration",
    "format_power",
    "load_controller_config",
    "load_node_config",
    "parse_controller_config",
    "parse_duration",
    "parse_node_config",
    "parse_power",
]
