"""Keeps the service alive on one machine: its parts as child processes, started, watched and stopped together."""
