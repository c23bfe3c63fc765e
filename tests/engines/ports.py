"""Free ports of loopback."""

import random
import socket
from pathlib import Path


def free_port(below: int = 2**16) -> int:
    """One that nobody has just now, and that the kernel gives to no connection while its server is started anew."""
    first_of_kernel = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    dice = random.SystemRandom()  # every process must come to others
    while True:
        port = dice.randrange(10_000, min(below, max(20_000, first_of_kernel)))
        with socket.socket() as taken:
            try:
                taken.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
