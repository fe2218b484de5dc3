"""What this process has cost so far. Imports nothing that would add to it."""

import resource
from pathlib import Path


def cpu_s() -> float:
    """CPU seconds, of user and system."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def peak_mb() -> float:
    """The largest resident memory. Linux's ru_maxrss starts at what the parent had when it forked; /proc does not."""
    status = Path("/proc/self/status")
    if status.exists():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024**2  # bytes on macOS
