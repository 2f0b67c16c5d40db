"""One run as one pure function, a chunk at a time.

`start` gives the state of a run; `run_chunk` takes it through a task or a part of one: the switch (context, then the
mitigations' events) if the chunk begins the task, updates with measurements in between, and the evaluation if it ends
the task. Both are pure, so that a run can be jitted alone, vmapped over seeds and strengths, stopped between chunks
and resumed.

The number of the task and the steps within it are never batched: periodic work inside a step stays a branch under vmap.
Online metrics are taken before the update on the batch (pre-update loss and score, averaged over the task).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from plasticity.heads import Head, Regression, Softmax
from plasticity.method import Method
from plasticity.mitigations import compose
from plasticity.mitigations.base import Context, Event, Learner, Mitigation, Setting
from plasticity.networks.base import Architecture
from plasticity.rng import named, stream
from tasks.base import Batch, Data, Problem, State, Task
from tasks.measure import Measure

#: End-of-task evaluation uses at most so many examples (the first of the stream).
EVALUATED = 4096


class RunState(NamedTuple):
    """stream: where the task stream is, the same for all methods of a seed; learner: what training has changed;
    total: sums of the pre-update loss and score over the task so far, `[2]`."""

    stream: State
    learner: Learner
    total: jax.Array


class Chunk(NamedTuple):
    """A stretch of a task: measured updates at `lasts`, plain ones before them from `firsts` on; int32 `[points]`."""

    firsts: jax.Array
    lasts: jax.Array


class Span(NamedTuple):
    """Whether a chunk begins and whether it ends its task: part of the compiled program."""

    begins: bool = True
    ends: bool = True


class Record(NamedTuple):
    """What a chunk leaves. dense: `name[/layer]` -> `[points]`, one value per measuring point.
    final: `name[/layer]` -> scalar, one value at the end of the task; empty if the chunk does not end it."""

    dense: dict[str, jax.Array]
    final: dict[str, jax.Array]


class _Parts(NamedTuple):
    head: Head
    setting: Setting
    initial: dict[str, Any]


def base_head(problem: Problem) -> Head:
    """The head of an unmitigated network on this problem."""
    if problem.kind == "classification":
        return Softmax(problem.classes)
    return Regression(*problem.target_range)


def architecture_on(task: Task, members: Sequence[Mitigation], data: Data) -> Architecture:
    """What these mitigations, in canonical order, make of a network on a task. `UserError` where they cannot stand."""
    compose.check_needs(members, "a stream of tasks", missing=["following"])
    return compose.architecture(members, Architecture(base_head(task.problem(data))))


def _parts(task: Task, method: Method, seed: jax.Array, data: Data) -> _Parts:
    members = compose.canonical(method.mitigations)
    architecture = architecture_on(task, members, data)
    network = method.network.build(architecture)
    example = data.inputs(jnp.zeros((1,), jnp.int32))

    def initializer(key: jax.Array) -> dict[str, Any]:
        return compose.initial(members, network, key, example)

    setting = Setting(network, initializer, method.optimizer.lr, stream(seed, "mitigation"))
    setting = compose.optimizer(members, method.optimizer, setting)
    # Recomputed from its key where it is needed, rather than carried: only L2-Init and distances read it.
    return _Parts(architecture.head, setting, initializer(stream(seed, "init")))


def start(task: Task, method: Method, seed: jax.Array, data: Data) -> RunState:
    """The state of a run before its first task."""
    parts = _parts(task, method, seed, data)
    learner = Learner(parts.initial, parts.setting.restarted(parts.initial))
    return RunState(task.init(named(stream(seed, "task"), "first"), data), learner, jnp.zeros(2))


def chunks(task: Task, measure: Measure, longest: int) -> list[tuple[Span, Chunk]]:
    """A task as chunks of at most `longest` updates, or one point where the measuring points lie further apart."""
    points = measure.updates(task.steps, longest)
    parts: list[list[tuple[int, int]]] = [[]]
    for first, end in zip((0, *points[:-1]), points, strict=True):
        if parts[-1] and end - parts[-1][0][0] > longest:
            parts.append([])
        parts[-1].append((first, end - 1))
    return [
        (
            Span(i == 0, i == len(parts) - 1),
            Chunk(*(jnp.array(column, jnp.int32) for column in zip(*part, strict=True))),
        )
        for i, part in enumerate(parts)
    ]


def run_chunk(
    task: Task,
    method: Method,
    measure: Measure,
    span: Span,
    seed: jax.Array,
    state: RunState,
    index: jax.Array,
    chunk: Chunk,
    data: Data,
) -> tuple[RunState, Record]:
    """Take a run through a chunk of task `index` (0-based, unbatched)."""
    members = compose.canonical(method.mitigations)
    parts = _parts(task, method, seed, data)
    setting, head, initial = parts.setting, parts.head, parts.initial
    network, tx = setting.network, setting.tx
    assert tx is not None
    data_key = jax.random.fold_in(stream(seed, "data"), index)
    reference = jnp.arange(min(measure.reference, data.labels.shape[0]))

    def some(current: Any, key: jax.Array) -> Batch:
        """A batch of the task as it is now, beside the stream's own order."""
        indices = jax.random.randint(key, (task.batch_size,), 0, data.labels.shape[0])
        return task.examples(current, indices, data)

    def forward(params: Any, variables: dict[str, Any], batch: Batch, key: jax.Array):
        """Mean loss of a batch in training, and what else the pass gives."""
        noise = named(key, "noise") if network.stochastic else None
        outputs, activations, new_state = network.apply({**variables, "params": params}, batch.x, noise, train=True)
        return jnp.mean(head.loss(outputs, batch.y)), (outputs, activations, new_state)

    def switch(state: RunState) -> RunState:
        key = jax.random.fold_in(stream(seed, "task"), index)
        event_key = jax.random.fold_in(named(stream(seed, "mitigation"), "switch"), index)
        following = task.advance(state.stream, key, data)

        def gradient(variables: Any, key: jax.Array) -> Any:
            batch = some(following.current, key)
            return jax.grad(lambda p: forward(p, variables, batch, key)[0])(variables["params"])

        event = Event(index, lambda key: some(following.current, key).x, gradient)
        return RunState(following, compose.on_switch(members, event_key, state.learner, setting, event), state.total)

    def update(stream_state: State, learner: Learner, step: jax.Array):
        key = jax.random.fold_in(data_key, step)
        stream_state, batch = task.batch(stream_state, key, step, data)
        variables, current = learner.variables, stream_state.current

        def context(outputs, activations) -> Context:
            return Context(
                network,
                initial,
                activations,
                outputs,
                variables,
                inputs=batch.x,
                targets=batch.y,
                loss=lambda p: forward(p, variables, batch, key)[0],
                reference=lambda: some(current, named(key, "reference")).x,
            )

        def objective(params):
            loss, found = forward(params, variables, batch, key)
            return loss + compose.penalty(members, params, context(*found[:2])), (loss, *found)

        params = variables["params"]
        grad_fn = compose.gradient(members, jax.grad(objective, has_aux=True))
        grads, (loss, outputs, activations, new_state) = grad_fn(params)
        updates, opt_state = tx.update(
            grads, learner.opt_state, params, activations=activations, step=index * task.steps + step
        )
        learner = Learner({**variables, **new_state, "params": optax.apply_updates(params, updates)}, opt_state)
        learner = compose.after_update(members, learner, context(outputs, activations))
        online = jnp.stack([loss, head.score(head.predict(outputs), batch.y)])
        return stream_state, learner, online, grads, updates

    def finish(state: RunState) -> dict[str, jax.Array]:
        variables, current = state.learner.variables, state.stream.current
        batch = task.examples(current, jnp.arange(min(EVALUATED, data.labels.shape[0])), data)
        measured = task.examples(current, reference, data)
        outputs, _, _ = network.apply(variables, batch.x)
        online = state.total / task.steps
        return {
            "online_loss": online[0],
            "online_score": online[1],
            "end_loss": jnp.mean(head.loss(outputs, batch.y)),
            "end_score": head.score(head.predict(outputs), batch.y),
            **measure.ranks(setting, variables, measured.x, index),
            **measure.probe(
                setting,
                method.optimizer,
                named(stream(seed, "probe"), "trainability"),
                variables,
                measured.x,
                index,
            ),
            **measure.curvature(
                setting, head, named(stream(seed, "probe"), "curvature"), variables, measured.x, measured.y, index
            ),
        }

    def plain(step: jax.Array, state: RunState) -> RunState:
        stream_state, learner, online, _, _ = update(state.stream, state.learner, step)
        return RunState(stream_state, learner, state.total + online)

    def interval(state: RunState, bounds: Chunk):
        """Updates `firsts .. lasts - 1` plainly, then update `lasts`, measured."""
        state = jax.lax.fori_loop(bounds.firsts, bounds.lasts, plain, state)
        stream_state, learner, online, grads, updates = update(state.stream, state.learner, bounds.lasts)
        x = task.examples(stream_state.current, reference, data).x
        dense = measure.cheap(setting, learner.variables, x, grads, updates, initial["params"])
        return RunState(stream_state, learner, state.total + online), dense

    if span.begins:
        state = jax.lax.cond(index > 0, switch, lambda state: state, state._replace(total=jnp.zeros(2)))
    state, dense = jax.lax.scan(interval, state, chunk)
    return state, Record(dense, finish(state) if span.ends else {})
