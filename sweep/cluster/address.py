"""Does anything listen where the cluster should be, and what is said if not?"""

import socket

ANSWER_DEADLINE_S = 10.0


def no_ray(address: str | None, error: Exception) -> str:
    if address is None:
        return f"Ray could not be started on this machine: {error}"
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}). `ray status` on its head "
        f"shows whether it runs, RAY_AUTH_MODE=token is needed where the cluster asks for a token, "
        f"and without RAY_ADDRESS the sweep uses this machine."
    )


def knock(address: str | None) -> None:
    """OSError at once where nothing listens: ray.init was seen to wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=ANSWER_DEADLINE_S).close()
