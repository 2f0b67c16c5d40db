"""Convolutional networks of the literature on loss of plasticity, for images of 28 x 28, 32 x 32 and the like.

Convolutions with max pooling behind each nonlinearity, then two dense hidden layers; names and layout as in
`plasticity.networks.cnn`. What was read and what is this suite's choice is said of each.
"""

from __future__ import annotations

from plasticity.config import config, static
from plasticity.network import Network
from plasticity.networks.base import Architecture, NetworkConfig, networks
from plasticity.networks.cnn import Layers, build


@config
class _ImageCNN(NetworkConfig):
    """What these networks have in common; members set other defaults."""

    width: int = static(128, ge=1, positional=True, unit="units", help="units of each of the two hidden layers")
    channels: int = static(32, ge=1, unit="channels", help="of each convolution")
    pool: int = static(2, ge=1, unit="pixels", help="window of the max pooling behind each convolution; 1: none")
    padding: str = static("VALID", choices=("SAME", "VALID"), help="of the convolutions")
    init: str = static("uniform", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")
    conv: str = static("auto", choices=("auto", "lax", "matmul"), help="form of the convolution; auto: by backend")
    dtype: str = static("float32", choices=("float32", "bfloat16"), help="compute type; parameters stay float32")

    def layers(self) -> Layers:
        """The convolutions."""
        raise TypeError(f"{type(self).__name__} has no convolutions")

    def build(self, architecture: Architecture) -> Network:
        own = {"padding": self.padding, "init": self.init, "conv": self.conv, "dtype": self.dtype}
        return build(self.layers(), (self.width, self.width), architecture, self.pool, **own)


@networks.register("cnn")
class CNN(_ImageCNN):
    """The CNN of Lyle et al. 2023: two convolutions (5 x 5, then 3 x 3, of 64 channels), two hidden layers of 256.

    Kernel sizes, channels and hidden layers were read in the source; of stride, pooling, padding and initialisation
    nothing was. Stride 1, max pooling of 2 x 2 behind each convolution, SAME padding (so that images of 7 x 7 pass too)
    and LeCun's normal are this suite's choices. That Lyle et al. 2024 (arXiv:2402.18762) have the same network is
    recalled, not read.
    """

    reference = "Lyle et al. 2023, arXiv:2303.01486"

    width: int = static(256, ge=1, positional=True, unit="units", help="units of each of the two hidden layers")
    channels: int = static(64, ge=1, unit="channels", help="of each convolution")
    padding: str = static("SAME", choices=("SAME", "VALID"), help="of the convolutions")
    init: str = static("lecun", choices=("lecun", "xavier", "uniform"), help="uniform: +-1/sqrt(fan_in), biases too")

    def layers(self) -> Layers:
        return (self.channels, 5, 1), (self.channels, 3, 1)


@networks.register("l2_init_cnn")
class L2InitCNN(_ImageCNN):
    """The CNN of Kumar et al. 2023 (L2 Init): two convolutions of 5 x 5 and 16 channels, two hidden layers of 100.

    As in its code (skumar9876/L2_Init), where the hidden width is an argument and 100 is that of the CIFAR runs: no
    padding, max pooling of 2 x 2 behind each convolution, torch's initialisation; 400 features before the hidden
    layers on 32 x 32. There the scale and offset of a layer norm are one a pixel and channel, here one a channel. An
    image must have 16 x 16 pixels, or SAME padding.
    """

    reference = "Kumar et al. 2023, arXiv:2308.11958"

    width: int = static(100, ge=1, positional=True, unit="units", help="units of each of the two hidden layers")
    channels: int = static(16, ge=1, unit="channels", help="of each convolution")

    def layers(self) -> Layers:
        return (self.channels, 5, 1), (self.channels, 5, 1)


@networks.register("continual_imagenet_cnn")
class ContinualImageNetCNN(_ImageCNN):
    """The CNN of Dohare et al. 2024 for continual ImageNet: convolutions 32 of 5 x 5, 64 and 128 of 3 x 3; 128, 128.

    As in its code (shibhansh/loss-of-plasticity): no padding, max pooling of 2 x 2 behind each convolution, torch's
    initialisation; 512 features before the hidden layers on 32 x 32. An image must have 24 x 24 pixels, or SAME
    padding.
    """

    reference = "Dohare et al. 2024, doi:10.1038/s41586-024-07711-7"

    channels: int = static(32, ge=1, unit="channels", help="of the first convolution; the others have 2 and 4 times it")

    def layers(self) -> Layers:
        return (self.channels, 5, 1), (2 * self.channels, 3, 1), (4 * self.channels, 3, 1)
