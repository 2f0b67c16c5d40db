"""The SEA concepts: a generated stream whose decision boundary moves three times. Needs no file.

Three features, uniform in [0, 10], of which the third says nothing. The label is 1 where f1 + f2 <= theta, else 0;
theta is 8, 9, 7, 9.5 in four blocks of 15,000 rows; then one label in ten is turned round. So no prediction can have
an expected accuracy above 0.9. Source: Street and Kim 2001, "A streaming ensemble algorithm (SEA) for large-scale
classification", KDD, doi:10.1145/502512.502568. The rows are the same on every machine: they are made from the raw
output of PCG64, which numpy promises never to change.
"""

from __future__ import annotations

import numpy as np

ROWS = 60_000
THETAS = (8.0, 9.0, 7.0, 9.5)
NOISE = 0.1
SEED = 2001


def generate() -> tuple[np.ndarray, np.ndarray]:
    """Features float32 `[60000, 3]` and labels int32 `[60000]`, in the order of time."""
    raw = np.random.PCG64(SEED).random_raw(4 * ROWS).reshape(ROWS, 4)
    uniform = (raw >> np.uint64(11)) * 2.0**-53
    features = (10 * uniform[:, :3]).astype(np.float32)
    theta = np.repeat(THETAS, ROWS // len(THETAS))
    # Of the rounded features, so that the label follows from what is seen.
    label = features[:, 0].astype(np.float64) + features[:, 1] <= theta
    return features, (label ^ (uniform[:, 3] < NOISE)).astype(np.int32)
