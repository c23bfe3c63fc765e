"""RAPID: what the node daemon, the control plane and the simulator share."""

__version__ = "0.1.0"
