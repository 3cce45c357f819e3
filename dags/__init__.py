"""Airflow wiring: a task is one call of a function that a test can call without Airflow."""
