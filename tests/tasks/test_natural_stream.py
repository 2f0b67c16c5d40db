"""A recorded stream: order, scaling, the baseline that repeats the last label, and what is no stream."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from plasticity.errors import UserError
from plasticity.spec import build_one
from tasks.base import tasks
from tasks.data.sets import Series


def stream(more="", size="steps=5, num_tasks=4, batch_size=3"):
    return build_one(f"natural_stream({size}{', ' * bool(more)}{more})", tasks)


@pytest.fixture
def record():
    """60 rows that say their own number, labels 0 0 0 1 1 1 ..."""
    rows = np.arange(60)
    return Series.of(np.stack([rows, 10.0 * rows + 7, np.full(60, 3.0)], axis=1), rows // 3 % 2)


def numbers(task, context, x):
    """The rows that inputs are of."""
    return np.rint(np.asarray(x[:, 0] * context.deviation[0] + context.mean[0])).astype(int)


def run(task, record, key=0):
    """Rows and labels of each task, in the order in which they are learned from."""
    state = task.init(jax.random.key(key), record)
    for index in range(task.num_tasks):
        if index:
            state = task.advance(state, jax.random.key(index), jnp.int32(index), record)
        shown = []
        for step in range(task.steps):
            at = jax.random.fold_in(jax.random.key(9), step)
            state, batch = task.batch(state, at, jnp.int32(step), jnp.int32(index), record)
            shown.append((numbers(task, state.current, batch.x), np.asarray(batch.y)))
        yield state, *(np.concatenate(column) for column in zip(*shown, strict=True))


def test_rows_come_once_and_in_the_order_of_time(record):
    seen = [(rows, labels) for _, rows, labels in run(stream(), record)]
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in seen]), np.arange(60))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in seen]), record.labels)


def test_shuffled_rows_come_once_in_another_order(record):
    rows = np.concatenate([rows for _, rows, _ in run(stream("order=shuffled"), record)])
    np.testing.assert_array_equal(np.sort(rows), np.arange(60))
    assert np.mean(np.diff(rows) == 1) < 0.2


def test_features_are_scaled_by_the_first_stretch_alone(record):
    task = stream()
    state = task.init(jax.random.key(0), record)
    first = np.asarray(record.features[:15])
    np.testing.assert_allclose(state.current.mean, first.mean(0), rtol=1e-6)
    # The third feature does not vary: it is centred, and keeps its scale.
    np.testing.assert_allclose(state.current.deviation, [*first[:, :2].std(0), 1.0], rtol=1e-6)
    later = Series.of(np.concatenate([first, 1e6 * np.asarray(record.features[15:])]), np.asarray(record.labels))
    np.testing.assert_array_equal(task.init(jax.random.key(0), later).current.mean, state.current.mean)


def test_the_baseline_is_how_often_the_label_is_the_one_before(record):
    task = stream()
    for index, (state, _, labels) in enumerate(run(task, record)):
        before = np.concatenate([[-1 if index == 0 else record.labels[15 * index - 1]], labels[:-1]])
        found = task.baselines(state, jnp.int32(index), record)
        assert found["repeat_last"] == pytest.approx(np.mean(labels == before))
    shuffled = next(run(stream("order=shuffled"), record))[0]
    assert stream("order=shuffled").baselines(shuffled, jnp.int32(1), record)["repeat_last"] < 0.8


def test_the_baseline_of_sea_is_near_its_majority():
    """Independent draws: repeating is right with p^2 + (1 - p)^2."""
    task = build_one("natural_stream(steps=15000, num_tasks=4)", tasks)
    data = task.load()
    state = task.init(jax.random.key(0), data)
    for index in range(4):
        share = np.mean(np.asarray(data.labels[15000 * index : 15000 * (index + 1)]))
        found = task.baselines(state, jnp.int32(index), data)["repeat_last"]
        assert found == pytest.approx(share**2 + (1 - share) ** 2, abs=0.015)


def test_a_transition_mixes_in_rows_of_the_stretch_before(record):
    whole = stream("transition=1", size="steps=5, num_tasks=4, batch_size=3")
    rows = np.array([rows for _, rows, _ in run(whole, record)])
    np.testing.assert_array_equal(rows[1, :3] // 15, 0)
    assert set(rows[2] // 15) == {1, 2}
    own = rows[2][rows[2] // 15 == 2]
    assert set(own) <= set(range(30, 45))


def test_a_record_that_is_too_short_or_of_one_class():
    with pytest.raises(UserError, match="60001"):
        build_one("natural_stream(steps=60001, num_tasks=1)", tasks).load()
    alike = Series.of(np.zeros((60, 2)), np.zeros(60, int))
    with pytest.raises(UserError, match="at least 2 classes are needed"):
        stream().check(alike)


def test_a_file_of_the_users(tmp_path):
    path = tmp_path / "own.csv"
    rows = np.random.default_rng(0).normal(size=(60, 2))
    path.write_text("a,b,label\n" + "".join(f"{a},{b},{int(a > 0)}\n" for a, b in rows))
    task = stream(f"data='{path}'")
    data = task.load()
    np.testing.assert_allclose(data.features, rows, rtol=1e-6)
    assert task.problem(data).chance == pytest.approx(max(np.mean(rows[:, 0] > 0), np.mean(rows[:, 0] <= 0)))
