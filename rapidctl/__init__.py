"""The control plane: the operator's command line, the controller, and the adapters for engines."""
