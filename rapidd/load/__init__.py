"""The phase load of the engines on this host, as the node report carries it."""
