"""Random changes of images against numpy and scipy rewrites."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import map_coordinates

from plasticity.errors import UserError
from plasticity.spec import build_one
from tasks.augment import AUGMENTATIONS, DEGREES, PAD, augmented, cropped, flipped, rotated
from tasks.base import tasks

X = jax.random.normal(jax.random.key(0), (64, 9, 7, 2))
KEY = jax.random.key(1)


def test_a_flip_mirrors_about_half_of_the_images():
    x, found = np.asarray(X), np.asarray(flipped(KEY, X))
    mirrored = np.array([np.array_equal(b, a[:, ::-1]) for a, b in zip(x, found, strict=True)])
    same = np.array([np.array_equal(b, a) for a, b in zip(x, found, strict=True)])
    assert (mirrored ^ same).all()
    assert 20 <= mirrored.sum() <= 44  # 32 expected, standard deviation 4


def test_a_crop_is_one_of_all_shifts_of_the_mirrored_image():
    padded = np.pad(np.asarray(X), ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)), mode="reflect")
    shifts = []
    for image, found in zip(padded, np.asarray(cropped(KEY, X)), strict=True):
        at = [
            (i, j)
            for i in range(2 * PAD + 1)
            for j in range(2 * PAD + 1)
            if np.array_equal(image[i : i + 9, j : j + 7], found)
        ]
        assert len(at) == 1
        shifts += at
    for axis in zip(*shifts, strict=True):
        assert min(axis) <= 1
        assert max(axis) >= 2 * PAD - 1


def test_a_rotation_is_that_of_scipy_by_an_angle_from_0_to_15_degrees():
    angles = np.asarray(jax.random.uniform(KEY, (64,), maxval=np.deg2rad(DEGREES)))
    assert angles.min() < np.deg2rad(2)
    assert np.deg2rad(13) < angles.max() < np.deg2rad(15)
    rows, columns = np.mgrid[:9, :7]
    for angle, image, found in zip(angles, np.asarray(X), np.asarray(rotated(KEY, X)), strict=True):
        cos, sin = np.cos(angle), np.sin(angle)
        places = [cos * (rows - 4) + sin * (columns - 3) + 4, cos * (columns - 3) - sin * (rows - 4) + 3]
        for channel in range(2):
            expected = map_coordinates(image[..., channel].astype(float), places, order=1, mode="grid-constant")
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-4)
        np.testing.assert_allclose(found[4, 3], image[4, 3], atol=1e-5)


def test_names_say_what_is_done():
    assert AUGMENTATIONS[0] == "none"
    np.testing.assert_array_equal(augmented("none", KEY, X), X)
    flip, crop, turn = jax.random.split(KEY, 3)
    np.testing.assert_array_equal(augmented("flip", KEY, X), flipped(flip, X))
    both = cropped(crop, flipped(flip, X))
    np.testing.assert_array_equal(augmented("flip_crop", KEY, X), both)
    np.testing.assert_array_equal(augmented("flip_crop_rotate", KEY, X), rotated(turn, both))


def test_only_training_batches_change_and_labels_stay():
    plain = "class_incremental(2, steps=4, batch_size=20, examples_used=200, held_out=50, pool=2)"
    task, other = (build_one(plain.replace("pool", a + "pool"), tasks) for a in ("", "augment=flip_crop, "))
    data = task.load()
    state, zero = task.init(jax.random.key(0), data), jnp.int32(0)
    before, after = (t.batch(state, KEY, zero, zero, data)[1] for t in (task, other))
    np.testing.assert_array_equal(before.y, after.y)
    assert (np.abs(before.x - after.x).max((1, 2, 3)) > 0.1).mean() > 0.8
    for way in ("evaluation", "tested", "fixed"):
        a, b = (getattr(t, way)(state, zero, 30, data) for t in (task, other))
        np.testing.assert_array_equal(a.x, b.x)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("label_reset(augment=flip)", "unknown field of \\w+ 'augment'"),
        ("input_permutation(augment=flip)", "unknown field of \\w+ 'augment'"),
        ("class_incremental(augment=flop)", "Did you mean 'flip'"),
    ],
)
def test_where_pixels_have_their_own_meaning_there_is_no_such_field(text, message):
    with pytest.raises(UserError, match=message):
        build_one(text, tasks)


def test_images_too_small_to_be_shifted_are_refused():
    with pytest.raises(UserError, match="shifts images by up to 4 pixels, these have 4 x 4; a smaller pool"):
        build_one("class_incremental(augment=flip_crop, pool=7)", tasks).load()
