"""Curvature of a loss and kernels of gradients: operators that are never formed, and what is measured on them.

    @jax.jit
    def measure(params, x, y, key):
        h = curvature.hessian(loss, params, x, y, chunk=256)
        spectrum = curvature.spectrum(h, key)
        return curvature.largest_eigenvalues(h, key, count=3), curvature.curvature_rank(spectrum)

An operator is built where it is used, inside the compiled function; everything works under `jit` and, for many runs,
under `vmap`. Compile it: uncompiled, every call of a scan is compiled anew.
"""

from plasticity.curvature.eigenvalues import (
    Eigenvalues,
    curvature_effective_rank,
    curvature_rank,
    curvature_srank,
    largest_eigenvalues,
    negative_curvature_share,
)
from plasticity.curvature.heatmap import HeatMap, kernel_heat_map
from plasticity.curvature.kernel import (
    DiagonalPlusLowRank,
    diagonal_plus_low_rank,
    kernel_condition,
    kernel_effective_rank,
    kernel_eigenvalues,
    kernel_srank,
    kernel_top_share,
)
from plasticity.curvature.lanczos import Density, Spectrum, moment, spectral_density, spectrum
from plasticity.curvature.ntk import gradient_cosine, gradient_gram, tangent_kernel
from plasticity.curvature.operators import Operator, gauss_newton, hessian
from plasticity.curvature.readings import readings
from plasticity.curvature.trace import Trace, hutchinson_diagonal, hutchinson_trace

__all__ = [
    "Density",
    "DiagonalPlusLowRank",
    "Eigenvalues",
    "HeatMap",
    "Operator",
    "Spectrum",
    "Trace",
    "curvature_effective_rank",
    "curvature_rank",
    "curvature_srank",
    "diagonal_plus_low_rank",
    "gauss_newton",
    "gradient_cosine",
    "gradient_gram",
    "hessian",
    "hutchinson_diagonal",
    "hutchinson_trace",
    "kernel_condition",
    "kernel_effective_rank",
    "kernel_eigenvalues",
    "kernel_heat_map",
    "kernel_srank",
    "kernel_top_share",
    "largest_eigenvalues",
    "moment",
    "negative_curvature_share",
    "readings",
    "spectral_density",
    "spectrum",
    "tangent_kernel",
]
