"""RAPID: what the node daemon, the control plane and the simulator share."""

import os

# gRPC reads this once, when it is first imported, and would print lines of its own between those of our log.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

__version__ = "0.1.0"
