"""Ports for servers that have to be told theirs."""

import socket


def free_port():
    """A port that is free now, and of which the next two are likely free, too."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]
