"""Nearline: a batch-plus-nearline recommender. This package is the ground floor of every room."""

__version__ = "0.1.0"
