"""The guard: instructions and system calls per event, which may not grow unnoticed."""
