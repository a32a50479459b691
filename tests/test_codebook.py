"""k-means codebooks against an exact dynamic programme over single values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quads_mcu.errors import TrainingError
from quads_mcu.model import codebook

RNG = np.random.default_rng(7)
DISTRIBUTIONS = {
    "normal": RNG.normal(size=1500),
    "laplace": RNG.laplace(size=1500),
    "uniform": RNG.uniform(size=1500),
    "student t": RNG.standard_t(2, 1500),
    "two heaps": np.r_[RNG.normal(size=700), RNG.normal(9, 0.1, 800)],
    "outlier": np.r_[RNG.normal(size=999), 1e4],
    "few values": RNG.integers(0, 40, 1500).astype(float),
    "one-sided": RNG.exponential(size=1001),
}


def least_error(values: NDArray[np.float64], k: int) -> float:
    """The optimum: best[i] is the error of the first i + 1 values in at most so many clusters."""
    v = np.sort(values.astype(np.float64))
    v -= v.mean()
    n = len(v)
    first, second = np.r_[0, np.cumsum(v)], np.r_[0, np.cumsum(v * v)]
    a, b = np.arange(n)[:, None], np.arange(n)[None] + 1
    with np.errstate(all="ignore"):
        cost = (second[b] - second[a]) - (first[b] - first[a]) ** 2 / (b - a)
    cost = np.where(b > a, cost, np.inf)
    best = cost[0]
    for _ in range(k - 1):
        longer = np.full(n, np.inf)
        longer[1:] = (best[:-1, None] + cost[1:, 1:]).min(0)
        best = np.minimum(best, longer)
    return float(best[-1])


def error(values: NDArray[np.float32], bits: int) -> float:
    centroids = codebook.fit(values, bits)
    assert centroids.shape == (1 << bits,) and centroids.dtype == np.float32
    assert (np.diff(centroids) >= 0).all()
    found = centroids[codebook.assign(values, centroids)].astype(np.float64)
    return float(((found - values) ** 2).sum())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_within_a_thousandth_of_the_optimum(name: str, bits: int) -> None:
    values = DISTRIBUTIONS[name].astype(np.float32)
    best = least_error(values, 1 << bits)
    spread = float(values.astype(np.float64).var()) * len(values)
    assert error(values, bits) <= 1.001 * best + 1e-9 * spread


def test_binned_search_is_near_the_optimum() -> None:
    """More distinct values than the exact search takes."""
    values = np.r_[RNG.normal(size=2000), RNG.normal(5, 0.2, 1000)].astype(np.float32)
    for bits in (2, 3, 4):
        assert error(values, bits) <= 1.001 * least_error(values, 1 << bits)


def test_no_centroid_lies_outside_the_values() -> None:
    values = np.array([1e-06, -131072.0], np.float32)
    assert codebook.fit(values, 2).max() == values.max()


@pytest.mark.parametrize("values", [[0.5], [1.0, 1.0, 1.0], [0.0, -2.0, 3.0]])
def test_fewer_values_than_centroids_are_exact(values: list[float]) -> None:
    array = np.array(values, np.float32)
    centroids = codebook.fit(array, 4)
    assert len(centroids) == 16
    np.testing.assert_array_equal(centroids[codebook.assign(array, centroids)], array)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=60), st.sampled_from([2, 3]))
def test_any_values(values: list[float], bits: int) -> None:
    array = np.array(values, np.float32)
    centroids = codebook.fit(array, bits)
    assert array.min() <= centroids.min() and centroids.max() <= array.max()
    distances = np.abs(array[:, None].astype(np.float64) - centroids.astype(np.float64))
    chosen = distances[np.arange(len(array)), codebook.assign(array, centroids)]
    tolerance = 1e-6 * np.abs(array).max()
    assert (chosen <= distances.min(axis=1) + tolerance).all()


def test_deterministic_and_independent_of_order() -> None:
    values = RNG.normal(size=(50, 80)).astype(np.float32)
    again = RNG.permutation(values.ravel())
    np.testing.assert_array_equal(codebook.fit(values, 4), codebook.fit(again, 4))


@pytest.mark.parametrize("values", [[], [np.nan, 1.0], [np.inf, 0.0], [-np.inf, 0.0]])
def test_refuses(values: list[float]) -> None:
    with pytest.raises(TrainingError, match="finite"):
        codebook.fit(np.array(values, np.float32), 2)


def test_int8_centroids() -> None:
    packed, scale = codebook.to_int8(np.array([-0.5, 0.0, 0.1, 0.25]))
    assert scale == 0.5 / 127
    assert packed.dtype == np.int8
    np.testing.assert_array_equal(packed, [-127, 0, 25, 64])
    zero, scale = codebook.to_int8(np.zeros(4))
    assert scale == 1.0 and not zero.any()
