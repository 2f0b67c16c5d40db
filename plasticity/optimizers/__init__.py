"""Optimisers by config: optax transformations, with per-entry Adam counts for networks whose units are reset."""

from plasticity.optimizers.base import OptimizerConfig, optimizers

__all__ = ["OptimizerConfig", "optimizers"]
