"""Data sets: the embedded one, and readers of what the user has."""

from tasks.data.load import load

__all__ = ["load"]
