"""Drawing transitions from a ring: which starts, their n-step returns, and where their frames lie.

From a start t, j is the first of 1..n at which row t + j has `term` or `stop`, else n. Then

    return = Σ_(i=1..j) γ^(i-1) r_(t+i),    discount = γ^j, or 0 if row t + j has `term`,

and the learner's target is return + discount · value(observation at t + j) (Sutton 1988; n-step replay as in Rainbow,
Hessel et al. 2018, arXiv:1710.02298). Only metadata is touched here: frames may be on the device or on the host.

- `Uniform`: every start equally likely. Candidates are drawn until one is a start, a fixed number of times at once.
- `Prioritized`: P = (1 - η) p^α / Σ p^α + η / N over the N starts (Schaul et al. 2016, arXiv:1511.05952). New starts
  get the largest priority ever written. η mixes in uniform draws as DQN Zoo does (1e-3 there), so no start is
  forgotten.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from rl.replay import blocks as block_sums
from rl.replay.ring import FRESH, STOP, TERM, Layout, Ring, stack_mask

#: Leaves of valid starts lie between these: above 0, which marks what is not one, and with finite sums.
LEAST, MOST = 1e-30, 1e20


class Uniform(NamedTuple):
    """Every start is equally likely."""


class Prioritized(NamedTuple):
    """exponent: α, applied when priorities are written. uniform_share: η, the share of draws made uniformly.

    Both may be traced, one value a lane.
    """

    exponent: float | Float[Array, ""] = 0.5
    uniform_share: float | Float[Array, ""] = 1e-3


class Draw(NamedTuple):
    """A batch of transitions without their frames; `obs_*` and `next_*` are for `assemble` or `HostFrames.gather`.

    reward: the n-step return. discount: what the value of the next observation is multiplied with. probability: of this
    start at each draw, 0 only if there was nothing to draw. size: starts that could be drawn, N.
    """

    slot: Int[Array, " batch"]
    env: Int[Array, " batch"]
    obs_slots: Int[Array, "batch stack"]
    obs_mask: Bool[Array, "batch stack"]
    next_slots: Int[Array, "batch stack"]
    next_mask: Bool[Array, "batch stack"]
    action: Int[Array, " batch"]
    reward: Float[Array, " batch"]
    discount: Float[Array, " batch"]
    probability: Float[Array, " batch"]
    size: Int[Array, ""]


def draw(
    layout: Layout,
    ring: Ring,
    count: Int[Array, ""],
    key: PRNGKeyArray,
    batch: int,
    how: Uniform | Prioritized = Uniform(),  # noqa: B008 - immutable
) -> Draw:
    """`batch` independent transitions, with replacement, after `count` rows. `Prioritized` needs
    `init(prioritized=True)`.

    With no start to draw (`ring.starts == 0`) the result is meaningless and `probability` is 0.
    """
    size = jnp.maximum(ring.starts, 1)
    if isinstance(how, Uniform):
        slot, env, found = _uniform(layout, ring, count, key, batch)
        probability = jnp.where(found, 1.0 / size, 0.0)
    elif ring.priorities is None:
        raise ValueError("this ring has no priorities: init(..., prioritized=True)")
    else:
        share = how.uniform_share
        flat_key, share_key, uniform_key = jax.random.split(key, 3)
        flat = block_sums.draw(ring.priorities, flat_key, batch)
        slot, env = flat // layout.envs, flat % layout.envs
        if not (isinstance(share, float | int) and share == 0):
            other_slot, other_env, found = _uniform(layout, ring, count, uniform_key, batch)
            other = (jax.random.uniform(share_key, (batch,)) < share) & found
            slot, env = jnp.where(other, other_slot, slot), jnp.where(other, other_env, env)
        leaf = block_sums.take(ring.priorities, slot * layout.envs + env)
        total = ring.priorities.sums.sum()
        probability = (1 - share) * leaf / jnp.where(total > 0, total, 1.0) + jnp.where(leaf > 0, share / size, 0.0)
    return _transitions(layout, ring, slot, env)._replace(probability=probability)


def update_priorities(
    layout: Layout, ring: Ring, drawn: Draw, priority: Float[Array, " batch"], how: Prioritized
) -> Ring:
    """Write priorities (≥ 0, before the exponent) of transitions drawn less than `slots` rows ago.

    A start that may no longer be drawn stays so. Of a start drawn twice, the larger priority counts. p^α is kept
    between 1e-30 and 1e20, and NaN counts as the least: a run that diverges still draws starts.
    """
    if ring.priorities is None:
        raise ValueError("this ring has no priorities: init(..., prioritized=True)")
    leaf = jnp.nan_to_num(priority.astype(jnp.float32), nan=0.0, posinf=MOST) ** how.exponent
    index = drawn.slot * layout.envs + drawn.env
    return ring._replace(priorities=block_sums.put_many(ring.priorities, index, jnp.clip(leaf, LEAST, MOST)))


def importance_weights(
    probability: Float[Array, " batch"], size: Int[Array, ""], beta: float | Float[Array, ""]
) -> Float[Array, " batch"]:
    """(N P)^-β divided by the largest in the batch, in (0, 1]; 0 where P is 0 (Schaul et al. 2016, section 3.4)."""
    weight = jnp.where(probability > 0, (size * jnp.where(probability > 0, probability, 1.0)) ** -beta, 0.0)
    return weight / jnp.maximum(weight.max(), jnp.finfo(jnp.float32).tiny)


def _uniform(
    layout: Layout, ring: Ring, count: Int[Array, ""], key: PRNGKeyArray, batch: int
) -> tuple[Int[Array, " batch"], Int[Array, " batch"], Bool[Array, ""]]:
    """Slots and environments of starts, exactly uniform; and whether there was any.

    Rows that may hold starts are an interval; in it, at least every other row is one in episodes that nobody cuts off.
    A sample whose candidates are all misses takes the hit of another sample: still uniform, only no longer independent.
    """
    tries = max(8, 128 // batch)
    oldest = jnp.maximum(0, count - layout.slots + layout.stack - 1)
    rows = jnp.maximum(1, count - layout.n_step - oldest)
    index = jax.random.randint(key, (batch, tries), 0, rows * layout.envs)
    slot, env = (oldest + index // layout.envs) % layout.slots, index % layout.envs
    hit = ring.flags[slot, env] & STOP == 0
    found = hit.any(axis=1)
    chosen = jnp.where(found, jnp.arange(batch), jnp.argmax(found))
    column = jnp.argmax(hit, axis=1)[chosen]
    return slot[chosen, column], env[chosen, column], found.any() & (ring.starts > 0)


def _transitions(layout: Layout, ring: Ring, slot: Int[Array, " batch"], env: Int[Array, " batch"]) -> Draw:
    """Everything about the transitions that start there but the probability."""
    stack, n_step = layout.stack, layout.n_step
    rows = (slot[:, None] + layout.slots - stack + 1 + jnp.arange(stack + n_step)) % layout.slots
    flags = ring.flags[rows, env[:, None]]
    fresh, ends = flags & FRESH > 0, flags[:, stack:] & (TERM | STOP) > 0

    # Step i counts while no row before it has ended the return; how many count is j.
    counts = jnp.cumsum(ends, axis=1) - ends == 0
    steps = counts.sum(axis=1)
    powers = jnp.asarray([layout.gamma**i for i in range(n_step + 1)], jnp.float32)
    rewards = ring.reward[rows[:, stack:], env[:, None]]
    reward = jnp.where(counts, rewards * powers[:n_step], 0.0).sum(axis=1)

    later = steps[:, None] + jnp.arange(stack)
    term = jnp.take_along_axis(flags, later[:, -1:], axis=1)[:, 0] & TERM > 0
    return Draw(
        slot,
        env,
        rows[:, :stack],
        stack_mask(fresh[:, :stack]),
        jnp.take_along_axis(rows, later, axis=1),
        stack_mask(jnp.take_along_axis(fresh, later, axis=1)),
        ring.action[slot, env],
        reward,
        jnp.where(term, 0.0, powers[steps]),
        jnp.zeros(slot.shape),
        ring.starts,
    )
