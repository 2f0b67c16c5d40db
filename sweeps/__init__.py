"""Sweeps: many runs as a few compiled programs, and the studies that test the paper's claims."""
