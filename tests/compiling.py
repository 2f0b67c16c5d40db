"""How XLA compiles the programs of tests: fast, rather than to be fast.

Most of the time of small tests is compilation, so LLVM's optimisation and the emitters of fusions are left out. What
XLA does to a program as a whole (fusion, scheduling, buffers) stays, but operations may be rounded otherwise.
`XLA_FLAGS= pytest` runs everything with the settings of users; what stands in `XLA_FLAGS` already is left alone.
"""

import jax

_FAST = {"xla_backend_optimization_level": "0", "xla_cpu_parallel_codegen_split_count": "1"}
#: For `compile` or `jit(compiler_options=)`, where what users get is tested: text, memory or last bit of a program.
AS_USERS = {"xla_backend_optimization_level": 3}
# XLA ends the process at an option that it does not know; later releases have the other emitters only.
if jax.__version_info__[:2] == (0, 10):
    _FAST["xla_cpu_use_fusion_emitters"] = "false"
    AS_USERS["xla_cpu_use_fusion_emitters"] = True

#: For the environment, so that programs started by a test have it, too.
FLAGS = " ".join(f"--{name}={value}" for name, value in _FAST.items())
