"""Networks: Flax Linen modules behind the `Network` record, one file each."""

from plasticity.networks.base import Architecture, NetworkConfig, networks

__all__ = ["Architecture", "NetworkConfig", "networks"]
