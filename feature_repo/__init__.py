"""Feast: entities, sources, views and services. Nothing computes here."""
