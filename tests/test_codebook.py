"""k-means codebooks against an exact search over single values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from quads_mcu.errors import TrainingError
from quads_mcu.model import codebook

RNG = np.random.default_rng(7)
DRAWN = {
    "normal": lambda n: RNG.normal(size=n),
    "laplace": lambda n: RNG.laplace(size=n),
    "uniform": lambda n: RNG.uniform(size=n),
    "student t": lambda n: RNG.standard_t(2, n),
    "lognormal": lambda n: RNG.lognormal(size=n),
    "two heaps": lambda n: np.r_[RNG.normal(size=n // 2), RNG.normal(9, 0.1, n - n // 2)],
}
DISTRIBUTIONS = {
    **{name: draw(1500) for name, draw in DRAWN.items()},
    "outlier": np.r_[RNG.normal(size=999), 1e4],
    "outlier below": np.r_[RNG.normal(size=999), -1e4],
    "few values": RNG.integers(0, 40, 1500).astype(float),
    "one-sided": RNG.exponential(size=1001),
}
SEARCHED = (4, 8, 16, 256)


def least_errors(values: NDArray[np.float32]) -> dict[int, float]:
    """The optimum for each number of centroids searched, in O(k n log n).

    best[i] is the error of the first i + 1 values in so many clusters. Where the last cluster
    starts never falls with i, so that halving the values halves the search (Gronlund et al., "Fast
    exact k-means, k-medians and Bregman divergence clustering in 1D", 2017).
    """
    v = np.sort(values).astype(np.float64)
    v -= np.median(v)
    n = len(v)
    first, second = np.r_[0, np.cumsum(v)], np.r_[0, np.cumsum(v * v)]

    def cost(start: NDArray[np.int64], last: NDArray[np.int64]) -> NDArray[np.float64]:
        total, count = first[last + 1] - first[start], last + 1 - start
        return np.asarray(second[last + 1] - second[start] - total**2 / count)

    best = cost(np.zeros(n, np.int64), np.arange(n))
    found = {}
    for k in range(2, max(SEARCHED) + 1):
        longer = np.full(n, np.inf)
        start = np.zeros(n + 1, np.int64)
        start[n] = n - 1
        done = np.array([-1, n])
        while len(done) < n + 2:
            left, right = done[:-1], done[1:]
            wide = right - left > 1
            left, right = left[wide], right[wide]
            middle = (left + right) // 2
            low = np.where(left < 0, 0, start[left])
            count = np.minimum(start[right], middle) - low + 1
            begin = np.cumsum(count) - count
            tried = np.arange(count.sum()) + np.repeat(low - begin, count)
            before = np.where(tried > 0, best[tried - 1], 0)
            total = before + cost(tried, np.repeat(middle, count))
            longer[middle] = np.minimum.reduceat(total, begin)
            hits = np.flatnonzero(total == np.repeat(longer[middle], count))
            start[middle] = tried[hits[np.searchsorted(hits, begin)]]
            done = np.sort(np.r_[done, middle])
        best = np.minimum(best, longer)
        if k in SEARCHED:
            found[k] = float(best[-1])
    return found


def error(values: NDArray[np.float32], bits: int) -> float:
    centroids = codebook.fit(values, bits)
    assert centroids.shape == (1 << bits,) and centroids.dtype == np.float32
    assert (np.diff(centroids) >= 0).all()
    found = centroids[codebook.assign(values, centroids)].astype(np.float64)
    return float(((found - values) ** 2).sum())


def assert_near_the_optimum(drawn: NDArray[np.float64]) -> None:
    values = drawn.astype(np.float32)
    best = least_errors(values)
    spread = float(values.astype(np.float64).var()) * len(values)
    for bits in (2, 3, 4, 8):
        assert error(values, bits) <= 1.001 * best[1 << bits] + 1e-9 * spread, bits


def test_the_exact_search_is_exact() -> None:
    """Against the plain O(k n^2) programme."""
    values = DRAWN["student t"](300).astype(np.float32)
    v = np.sort(values).astype(np.float64)
    cost = np.full((301, 301), np.inf)
    for a in range(300):
        for b in range(a + 1, 301):
            cost[a, b] = ((v[a:b] - v[a:b].mean()) ** 2).sum()
    best, found = cost[0], least_errors(values)
    for k in range(2, 17):
        best = np.minimum(best, (best[:, None] + cost).min(axis=0))
        if k in SEARCHED:
            assert found[k] == pytest.approx(best[300], rel=1e-9)


@pytest.mark.parametrize("name", DISTRIBUTIONS)
def test_within_a_thousandth_of_the_optimum(name: str) -> None:
    assert_near_the_optimum(DISTRIBUTIONS[name])


@pytest.mark.parametrize("name", DRAWN)
def test_binned_search_is_near_the_optimum(name: str) -> None:
    """More distinct values than get bins of their own."""
    assert_near_the_optimum(DRAWN[name](4000))


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
