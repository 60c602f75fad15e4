"""Resident memory."""

from __future__ import annotations

import contextlib
import ctypes


def return_freed() -> None:
    """Give freed memory back to the system: glibc keeps blocks of up to 32 MB, so a whole pass's activations."""
    with contextlib.suppress(OSError, AttributeError):  # another C library
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def keep_freed() -> None:
    """From here on keep freed memory, in pieces of up to 256 MB, for the tensors to come: pages that come new from the
    system are zeroed first, which takes a tenth of the time of a pass. `return_freed` gives it back all the same."""
    mmap_threshold, trim_threshold = -3, -1
    with contextlib.suppress(OSError, AttributeError):  # another C library
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(mmap_threshold, 256 << 20)
        library.mallopt(trim_threshold, 1 << 30)
