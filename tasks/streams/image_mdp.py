"""Value learning on images with a target network: the nonstationarity that a DQN makes for itself.

There are as many states and actions as classes; the observation of a state is a random image of it. Behaviour is
uniform over actions. Action a in state s is right if a = s. The loss is that of DQN,

    (Q(x, a) - r - gamma max_b Q'(x', b))^2 / 2,

with Q' the network as it was at the last switch: a task is one period of the target network, `steps` its length.

- reward=true_label: r = [a = s], a state's images are those of its class; random_label: the same with states drawn for
  each image, equally many each, so that they must be memorised; sparse: r = [a = s = last state].
- moves=random: the next state is uniform, whatever was done (a contextual bandit with an infinite horizon);
  moves=chain: the next state is s + 1 (cyclic) after the right action, else uniform.

With moves=random the optimal values are [a = s] + gamma / (1 - gamma): one-hot plus an offset that grows with gamma.
The score is how often the action of the highest value is right. Chance: 1 / C. Optimum: 1. gamma = 0 is plain
regression.

Source: Lyle et al. 2023, arXiv:2303.01486, section 5 and appendix A (10 states, MNIST or CIFAR-10, target period 1 to
10,000); Lyle et al. 2024, arXiv:2402.18762, section 3.1 on the offset. The discount is not known: .9 is this suite's.
With `transition`, the target network moves in a straight line to its new parameters instead of jumping.
"""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from plasticity.config import static, traced
from plasticity.errors import UserError
from tasks.base import Batch, Problem, State, Task, Transition, tasks
from tasks.data.sets import Images
from tasks.examples import ExampleTask


class States(NamedTuple):
    """state: of each image, int32 `[examples]`; by_state: images sorted by it; starts, sizes `[states]`: where the
    images of a state begin in `by_state`, and how many there are."""

    state: jax.Array
    by_state: jax.Array
    starts: jax.Array
    sizes: jax.Array


@tasks.register("image_mdp")
class ImageMDP(ExampleTask):
    """Q-learning with a target network on an MDP (or contextual bandit) whose states are shown by images.

    A task is one period of the target network. The right action in a state is its number; rewards and moves as the
    fields say. Behaviour is uniform. The score is the share of images on which the greedy action is right.
    """

    reference: ClassVar[str] = "Lyle et al. 2023, arXiv:2303.01486, section 5; Lyle et al. 2024, arXiv:2402.18762"
    kind = "values"
    generalizes: ClassVar[bool] = False
    score_label: ClassVar[str] = "greedy actions that are right"
    levels: ClassVar[str] = "chance 1 / classes; optimum 1"
    protocols: ClassVar[dict[str, str]] = {
        f"lyle2023_{reward}": f"image_mdp({reward}, steps=1000, num_tasks=100, batch_size=512, examples_used=50000, "
        "data=cifar10)"
        for reward in ("true_label", "random_label", "sparse")
    }

    reward: str = static(
        "true_label",
        choices=("true_label", "random_label", "sparse"),
        positional=True,
        help="which actions pay, and what an image's state is",
    )
    moves: str = static("chain", choices=("chain", "random"), help="where an action leads; random: a contextual bandit")
    gamma: float = traced(0.9, ge=0, le=0.9999, help="discount of what follows")

    def validate(self) -> None:
        super().validate()
        if self.reward == "sparse" and self.moves == "random":
            raise UserError(
                f"{self.name}: reward=sparse needs moves=chain, got moves=random: only one state would matter"
            )

    def problem(self, data: Images) -> Problem:
        """`target_range` holds for the optimal values, and for targets as long as predictions keep to it."""
        return Problem("values", data.classes, (0.0, 1 / (1 - self.gamma)), 1 / data.classes, data.classes)

    def first(self, key: jax.Array, data: Images) -> States:
        states, examples = data.classes, data.examples
        if self.reward == "random_label":
            sizes = np.bincount(np.arange(examples) % states, minlength=states)
            state = jax.random.permutation(key, jnp.arange(examples, dtype=jnp.int32) % states)
        else:
            sizes, state = np.array(data.counts), data.labels[:examples]
        starts = np.cumsum(sizes) - sizes
        return States(state, jnp.argsort(state), jnp.asarray(starts, jnp.int32), jnp.asarray(sizes, jnp.int32))

    def following(self, context: States, key: jax.Array, index: jax.Array, data: Images) -> States:
        return context

    def check(self, data: Images) -> None:
        super().check(data)
        if self.reward != "random_label" and min(data.counts) == 0:
            raise UserError(
                f"{self.name}: every class needs an image among the {data.examples} examples, "
                f"class {data.counts.index(0)} has none"
            )

    def batch(
        self, state: State, key: jax.Array, step: jax.Array, index: jax.Array, data: Images
    ) -> tuple[State, Batch]:
        # The environment is stationary: a transition smears the target network only, which is the training loop's.
        return state, self.sample(state.current, key, self.batch_size, index, data)

    def sample(self, context: States, key: jax.Array, count: int, index: jax.Array, data: Images) -> Batch:
        image, action, anywhere, which = jax.random.split(key, 4)
        images = jax.random.randint(image, (count,), 0, data.examples)
        state = context.state[images]
        actions = jax.random.randint(action, (count,), 0, data.classes)
        right = actions == state
        following = jax.random.randint(anywhere, (count,), 0, data.classes)
        if self.moves == "chain":
            following = jnp.where(right, (state + 1) % data.classes, following)
        # Not a bounded draw: the bound differs from state to state.
        place = jnp.floor(jax.random.uniform(which, (count,)) * context.sizes[following]).astype(jnp.int32)
        place = jnp.minimum(place, context.sizes[following] - 1)
        next_images = context.by_state[context.starts[following] + place]
        pays = right & (state == data.classes - 1) if self.reward == "sparse" else right
        discount = jnp.full((count,), self.gamma, jnp.float32)
        return Batch(
            data.inputs(images),
            Transition(actions, pays.astype(jnp.float32), discount, data.inputs(next_images), state),
        )

    def fixed(self, state: State, index: jax.Array, count: int, data: Images) -> Batch:
        """Transitions from a fixed key, the same ones in every task."""
        return Task.fixed(self, state, index, count, data)

    def evaluation(self, state: State, index: jax.Array, limit: int, data: Images) -> Batch:
        return self.fixed(state, index, min(limit, data.examples), data)
