"""Comparison of linux_event with other event loops: ``python -m benchmarks``."""
