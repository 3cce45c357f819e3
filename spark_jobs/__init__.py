"""Spark: clean events, hourly partial aggregates, user sequences, item co-occurrence."""
