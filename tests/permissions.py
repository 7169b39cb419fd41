"""Permissions that bind tests which run as root."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

PR_CAPBSET_DROP = 24


def obey_permissions() -> None:
    """Give up root's right to read and write whatever the permissions say, in this process and those that it starts."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    data = (ctypes.c_uint32 * 6)()  # (effective, permitted, inheritable) of capabilities 0 to 31, then of the others
    ignoring = 0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    for capability in (1, 2):  # programs that root starts would have them again
        assert libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0, os.strerror(ctypes.get_errno())
    assert libc.capget(header, data) == 0
    data[0] &= ~ignoring
    data[1] &= ~ignoring
    assert libc.capset(header, data) == 0, os.strerror(ctypes.get_errno())


def writable(root: Path, value: bool) -> None:
    """Allow or forbid to write to a folder and all that is in it."""
    for path in [root, *root.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode | 0o200 if value else path.stat().st_mode & ~0o222)
