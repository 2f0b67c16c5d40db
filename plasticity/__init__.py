"""Loss of plasticity in neural networks: diagnostics and mitigations for any JAX training loop.

    import plasticity

    readings = plasticity.diagnose(activations=activations, params=params)
    loss, taps = plasticity.capture(loss_fn)(params, batch)
    monitor = plasticity.Monitor(every=500)
    members = plasticity.mitigation("layer_norm+redo(tau=0.1)+l2(1e-5)")

Everything here is imported when it is first used: `import plasticity` costs a few milliseconds and brings neither
JAX nor anything optional with it.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from plasticity.capture import capture, tap
    from plasticity.diagnostics import diagnose
    from plasticity.errors import UserError
    from plasticity.mitigations import Mitigation
    from plasticity.monitor import Monitor
    from plasticity.network import Network
    from plasticity.spec import build, to_text

#: Public name -> the module that it comes from.
_HOME = {
    "Mitigation": "plasticity.mitigations",
    "Monitor": "plasticity.monitor",
    "Network": "plasticity.network",
    "UserError": "plasticity.errors",
    "build": "plasticity.spec",
    "capture": "plasticity.capture",
    "diagnose": "plasticity.diagnostics",
    "tap": "plasticity.capture",
    "to_text": "plasticity.spec",
}
_MODULES = ("curvature", "diagnostics", "mitigations", "networks", "optimizers", "probes", "record", "rng", "spec")

__all__ = [
    "Mitigation",
    "Monitor",
    "Network",
    "UserError",
    "build",
    "capture",
    "diagnose",
    "mitigation",
    "tap",
    "to_text",
]


def mitigation(text: str) -> tuple[Mitigation, ...]:
    """The mitigations of a spec such as `layer_norm+redo(tau=0.1)`, in the order in which they are composed.

    Raises `UserError` for a name, field or value that does not exist, and for members that exclude each other.
    """
    from plasticity.mitigations import compose, mitigations
    from plasticity.spec import build

    return compose.canonical(build(text, mitigations))


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib import metadata

        try:
            return metadata.version("plasticity-suite")
        except metadata.PackageNotFoundError:
            return "0+unknown"  # run from a clone that is not installed
    if name in _MODULES:
        return importlib.import_module(f"plasticity.{name}")
    if name not in _HOME:
        raise AttributeError(f"module 'plasticity' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})


class _Package(ModuleType):
    """Keeps `plasticity.capture` the function when the module of the same name is imported.

    The import system sets a package's attribute to each submodule that it loads, which would win over the function
    as soon as anybody wrote `from plasticity.capture import tap`.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "capture" and isinstance(value, ModuleType):
            value = value.capture
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
