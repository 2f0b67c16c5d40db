"""Curvature of a loss and kernels of gradients: operators that are never formed, and what is measured on them."""
