"""Normalisations before every nonlinearity, beside layer norm. `plasticity.networks.normalization` has the formulas.

All have a learned scale and (but for RMS norm) offset of each unit, which penalties leave alone and which restart at 1
and 0 with a recycled unit. Which of them leave a network's function alone when a dead unit is recycled: those over the
batch do, to the bit, as a unit's statistics are its own. Those over the units of an example do not: a recycled unit
changes what its neighbours (in group norm those of its group) are divided by.

Running averages are no parameters: shrink and perturb, decay and resets of units leave them alone (those of a recycled
unit are its old ones for about 1 / (1 - momentum) updates), a full reset starts them again. RL: the target network has
those of when it was copied, and what acts, evaluates or gives the targets' values uses averages and not its batch
(CrossQ's joint batch of states and next states is not made).
"""

from __future__ import annotations

from dataclasses import replace

from plasticity.config import static
from plasticity.mitigations.base import Mitigation, mitigations
from plasticity.networks.base import Architecture
from plasticity.networks.options import Normalization

_MOMENTUM = "weight of the old value in running averages"


class _Normalization(Mitigation):
    stage = "normalization"

    def options(self) -> Normalization:
        raise NotImplementedError

    def network(self, architecture: Architecture) -> Architecture:
        return replace(architecture, normalization=self.options())


@mitigations.register("rms_norm")
class RMSNorm(_Normalization):
    """z <- gamma z / sqrt(mean z^2 + 1e-6), the mean over the units of an example; no centring and no offset.

    Layer norm without what moves the mean: preactivations may all drift to one side of the nonlinearity. eps is this
    suite's choice (the source states none), the same as for layer norm. Penalties leave the scale alone; with a
    recycled unit it restarts at 1, and the unit changes what its neighbours are divided by.
    """

    reference = "Zhang & Sennrich 2019, arXiv:1910.07467"

    def options(self) -> Normalization:
        return Normalization("rms")


@mitigations.register("group_norm")
class GroupNorm(_Normalization):
    """Layer norm in equal groups of neighbouring units: z <- gamma (z - m) / sqrt(v + 1e-5) + beta in each group.

    The source has 32 groups, in networks of 64 to 2,048 channels; 4 is this suite's default, which divides the widths
    of its networks. groups=1 is layer norm. A width that the groups do not divide is an error. Penalties leave scale
    and offset alone; with a recycled unit they restart, and the unit changes what its group is divided by.
    """

    reference = "Wu & He 2018, arXiv:1803.08494 (32 groups)"

    groups: int = static(4, ge=1, positional=True, unit="groups", help="groups of equal size in each layer")

    def options(self) -> Normalization:
        return Normalization("group", groups=self.groups)


class _OverBatch(_Normalization):
    """What has running averages."""

    cost = "two averages over the batch a layer"


@mitigations.register("batch_norm")
class BatchNorm(_OverBatch):
    """z <- gamma (z - m) / sqrt(v + 1e-5) + beta, m and v of each unit over the batch (and positions).

    In training those of the batch; everywhere else averages with running = momentum running + (1 - momentum) batch's.
    The unit's bias has no effect in training and gets no gradient. Variances have divisor N (torch's running ones
    N - 1). A batch of one gives beta for every input. Recycling a dead unit leaves the function as it is, to the bit;
    its scale and offset restart at 1 and 0, its running averages are its old ones until updates have moved them. RL:
    targets and actions come from running averages, those of the target network from when it was copied.
    """

    reference = "Ioffe & Szegedy 2015, arXiv:1502.03167 (momentum: this suite's, Flax's default)"

    momentum: float = static(0.99, ge=0, le=1, help=_MOMENTUM)

    def options(self) -> Normalization:
        return Normalization("batch", self.momentum)


@mitigations.register("batch_renorm")
class BatchRenorm(_OverBatch):
    """z <- gamma (r (z - m) / s + d) + beta: in value the running averages', in gradient the batch's.

    s = sqrt(v + 1e-3); r = s / running s within 1/r_max .. r_max and d = (m - running m) / running s within -d_max ..
    d_max, both without gradient. With nothing clipped the values are those of evaluation. In the first `warm_up`
    updates r = 1 and d = 0, which is batch norm: runs shorter than the default of 100,000 are nothing else, so shorten
    it with them. Values are CrossQ's, which switches at once; the source raises the bounds step by step, to 3 and 5.
    Resets, biases and RL: as for batch_norm.
    """

    reference = "Ioffe 2017, arXiv:1702.03275; values of CrossQ, Bhatt et al. 2024, arXiv:1902.05605"

    momentum: float = static(0.99, ge=0, le=1, help=_MOMENTUM)
    warm_up: int = static(100_000, ge=0, unit="updates", help="as batch norm for so long")
    r_max: float = static(3.0, ge=1, help="largest factor between the deviations of batch and running average")
    d_max: float = static(5.0, ge=0, unit="standard deviations", help="largest distance of their means")

    def options(self) -> Normalization:
        return Normalization("batch_renorm", self.momentum, warm_up=self.warm_up, r_max=self.r_max, d_max=self.d_max)


@mitigations.register("hybrid_norm")
class HybridNorm(_OverBatch):
    """z <- gamma (z - m) / sqrt(v + 1e-5) + beta, m of each unit over the batch, v of each example over the units.

    Batch norm's centring with layer norm's scaling, which the source reports to be at least as robust as either. That v
    is the variance of z itself (not of z - m) is this suite's reading. The mean is the batch's in training, else a
    running average. The unit's bias moves v, no more. Recycling a dead unit changes its neighbours through v; its
    scale and offset restart at 1 and 0.
    """

    reference = "Lyle et al. 2024, arXiv:2402.18762, the ablation of normalization axes"

    momentum: float = static(0.99, ge=0, le=1, help=_MOMENTUM)

    def options(self) -> Normalization:
        return Normalization("hybrid", self.momentum)
