"""The node daemon: enforces power limits and reports the load of the engines on its host."""
