"""Experiments, read from the lake: what became of each arm."""
