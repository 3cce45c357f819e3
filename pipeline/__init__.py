"""Composition: the steps of the ring in order, for the scheduler and for people."""
