"""Answers requests: releases loaded and swapped, live user state, retrieval, API and client."""
