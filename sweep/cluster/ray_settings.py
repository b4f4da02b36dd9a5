"""How Ray is started on this machine or entered elsewhere, and what is said where that fails."""

import socket
from typing import Any

from sweep.environment import local_cpus

CONNECT_S = 10.0
OBJECT_STORE_BYTES = 2**30  # nothing large goes through it; Ray would take 30 % of the memory


def ray_settings(address: str | None) -> dict[str, Any]:
    """The arguments of ``ray.init``; None: a Ray of this machine's own."""
    quiet = {"log_to_driver": False, "configure_logging": False}
    if address is not None:
        return {**quiet, "address": address}
    return {
        **quiet,
        "address": "local",
        "_node_ip_address": "127.0.0.1",
        "num_cpus": local_cpus(),
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }


def require_listener(address: str | None) -> None:
    """OSError at once where nothing listens: ray.init was seen to wait for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdigit() and "//" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_S).close()


def no_ray(address: str | None, error: Exception) -> str:
    """What to tell and to do where Ray has not come up or does not answer."""
    if address is None:
        return (
            f"Ray could not be started on this machine: {error} If it took too long, the machine "
            f"is busy: type the same again when it is less so. Else Ray's own logs say why, in "
            f"/tmp/ray/session_latest/logs (where RAY_TMPDIR is set, there)."
        )
    return (
        f"RAY_ADDRESS={address}: no Ray cluster answers there ({error}). `ray status` on its head "
        f"shows whether it runs, RAY_AUTH_MODE=token is needed where the cluster asks for a token, "
        f"and without RAY_ADDRESS the sweep uses this machine."
    )
