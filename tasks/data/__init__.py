"""Data sets: the embedded and the generated ones, and readers of what the user has."""

from tasks.data.load import load
from tasks.data.series import load_series
from tasks.data.text import load_text

__all__ = ["load", "load_series", "load_text"]
