"""Keep freed memory in the process instead of giving it back to the kernel (mallopt of glibc).

On a CPU every operation makes its result anew. The C library gives a megabyte back to the kernel as
soon as it is free, and the kernel zeroes it for the next operation, page by page. Of sliding
scoring with the local recipe that was a fifth of the time (docs/performance.md).
"""

import ctypes

KEPT_BLOCK_BYTES = 2**25
"""What is larger goes back at once; glibc takes no larger value."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's numbers, of malloc.h
_NEVER = 2**31 - 1


def keep_freed_memory() -> bool:
    """Let this process keep freed blocks for itself; False where the C library cannot."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return bool(mallopt(_MMAP_THRESHOLD, KEPT_BLOCK_BYTES) and mallopt(_TRIM_THRESHOLD, _NEVER))
