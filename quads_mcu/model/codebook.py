"""Codebooks: near-optimal one-dimensional k-means and assignment to the nearest centroid.

In one dimension clusters are intervals, so everything works on sorted values and prefix sums. A
dynamic programme over bins finds the intervals, and Lloyd's algorithm moves their borders between
single values. Then all borders move at once, each anywhere between its two neighbours (`_shift`),
as long as that gains something. Beside exact searches the error is within 0.1 % of the optimum, at
2 to 8 bits and with heavy tails, too. No distance matrix is ever formed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import TrainingError

INT8_MAX = 127
# Steps of Lloyd's algorithm at most, and times k: many centroids would take ever more of them,
# and shifts do better.
_LLOYD_STEPS = 199
_LLOYD_WORK = 3200
_ROW_STEPS = 3
_HISTOGRAM_BINS = 4096
# Longest cluster the dynamic programme considers, in multiples of the average one.
_LONGEST = 16
# Up to this many distinct values each is a bin of its own; more are put in so many bins.
_EXACT_VALUES = 2048
_BINS = 512
# A shift of the borders is kept, and followed by another, if it saves this share of the error.
_LEAST_GAIN = 2e-4
_SHIFTS = 100
# Steps of a border between two neighbours, times sqrt(k): equal work at any number of centroids.
_SHIFT_STEPS = 256

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def fit(values: NDArray[Any], bits: int) -> Float32:
    """Fit a codebook by k-means: minimize the sum of squared distances to the nearest centroid.

    The sum is within 0.1 % of the least one (measured beside exact searches, not proved).

    Args:
        values: any shape, at least one value.
        bits: the codebook has 2**bits centroids.
    Returns:
        float32 (2**bits,), ascending; with fewer distinct values than centroids the greatest
        value is repeated. The result depends on nothing but the arguments.
    Raises:
        TrainingError: no values, or values that are not finite.
    """
    ordered = np.sort(np.asarray(values, np.float32), axis=None).astype(np.float64)
    if not ordered.size or not np.isfinite(ordered[[0, -1]]).all():
        raise TrainingError("a codebook needs weights, all of them finite")
    k = 1 << bits
    # Around a value of the middle: around an outlier, differences of sums would lose digits.
    centred = ordered - ordered[len(ordered) // 2]
    first, second = np.zeros((2, len(ordered) + 1))
    np.cumsum(centred, out=first[1:])
    np.cumsum(np.square(centred, out=centred), out=second[1:])
    steps = min(_LLOYD_STEPS, _LLOYD_WORK // k)
    edges = _bins(ordered)
    starts = _lloyd(ordered, first, edges[_partition(edges, first, second, k)], steps)
    error = _error(first, second, starts)
    for _ in range(_SHIFTS):
        moved = _lloyd(ordered, first, _shift(first, second, starts, k), steps)
        before, error = error, _error(first, second, moved)
        if not error < (1 - _LEAST_GAIN) * before:
            break
        starts = moved
    # A mean is a difference of running sums: rounding may place it outside the values themselves.
    centroids = np.clip(_means(ordered, first, starts), ordered[0], ordered[-1])
    padding = np.full(k - len(centroids), centroids[-1])
    padded: NDArray[np.float32] = np.concatenate([centroids, padding]).astype(np.float32)
    return padded


def fit_rows(values: NDArray[Any], bits: int) -> tuple[Float32, Float32]:
    """Fit one codebook and a scale per row: values[n] is near scales[n] * centroids[index].

    Alternates k-means of the rows divided by their scales with the scales of least squares.

    Args:
        values: (N, ...), N rows.
        bits: the codebook has 2**bits centroids.
    Returns:
        centroids, float32 (2**bits,), ascending; scales, float32 (N,), positive.
    Raises:
        TrainingError: as for `fit`.
    """
    rows = np.asarray(values, np.float32).reshape(len(values), -1)
    scales = np.sqrt(np.square(rows).mean(axis=1))
    scales[scales == 0] = 1
    for _ in range(_ROW_STEPS):
        centroids = fit(rows / scales[:, None], bits)
        decoded = centroids[assign(rows / scales[:, None], centroids)]
        energy = np.square(decoded).sum(axis=1)
        fitted = (rows * decoded).sum(axis=1) / np.maximum(energy, np.float32(1e-30))
        scales = np.where(fitted > 0, fitted, scales)
    return centroids, scales.astype(np.float32)


def assign(values: NDArray[Any], centroids: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the index of the nearest centroid, uint8, for ascending centroids (at most 256)."""
    borders = (centroids[1:] + centroids[:-1]) / 2
    return np.searchsorted(borders, values).astype(np.uint8)


def to_int8(centroids: NDArray[Any]) -> tuple[NDArray[np.int8], float]:
    """Return int8 centroids and their scale: the greatest magnitude becomes 127."""
    scale = float(np.abs(centroids).max()) / INT8_MAX or 1.0
    return np.rint(np.asarray(centroids, np.float64) / scale).astype(np.int8), scale


def _bins(ordered: Float64) -> NDArray[np.int64]:
    """Return where bins start in `ordered`, and its size at the end.

    Few distinct values: one bin each. Many: bins of equal share of density**(1/3), the density of
    centroids in an optimal codebook (Panter and Dite), so that clusters span similar bin counts.
    """
    fresh = np.flatnonzero(np.diff(ordered)) + 1
    if len(fresh) < _EXACT_VALUES:
        starts = fresh
    else:
        low, high = ordered[0], ordered[-1]
        borders = np.linspace(low, high, _HISTOGRAM_BINS + 1)
        density = np.diff(np.searchsorted(ordered, borders[1:-1]), prepend=0, append=len(ordered))
        share = np.concatenate([[0.0], np.cumsum(np.cbrt(density))])
        cuts = np.interp(np.linspace(0, share[-1], _BINS + 1)[1:-1], share, borders)
        starts = np.unique(np.searchsorted(ordered, cuts))
    inner = starts[(starts > 0) & (starts < len(ordered))]
    return np.concatenate([[0], inner, [len(ordered)]]).astype(np.int64)


def _partition(
    edges: NDArray[np.int64], first: Float64, second: Float64, k: int
) -> NDArray[np.int64]:
    """Return at which bins the clusters of the best partition start (dynamic programme)."""
    n_bins = len(edges) - 1
    if n_bins <= k:
        return np.arange(n_bins)
    longest = min(n_bins, _LONGEST * n_bins // k)
    # cost[i, j]: squared error of the cluster of bins i - j ... i.
    stop = np.arange(n_bins)[:, None]
    start = np.maximum(stop - np.arange(longest)[None, :], 0)
    a, b = edges[start], edges[stop + 1]
    cost = second[b] - second[a] - (first[b] - first[a]) ** 2 / (b - a)
    cost[stop < np.arange(longest)] = np.inf
    # best[i]: least error of bins 0 ... i in the clusters so far; before[i, j]: best[i - j - 1].
    padded = np.full(longest + n_bins, np.inf)
    best = padded[longest:]
    best[:longest] = cost[np.arange(longest), np.arange(longest)]
    before = np.lib.stride_tricks.sliding_window_view(padded, longest)[:n_bins, ::-1]
    choices = np.zeros((k, n_bins), np.int64)
    for cluster in range(1, k):
        total = before + cost
        choices[cluster] = total.argmin(axis=1)
        best[:] = total[np.arange(n_bins), choices[cluster]]
    starts = np.zeros(k, np.int64)
    last = n_bins - 1
    for cluster in range(k - 1, 0, -1):
        starts[cluster] = last - choices[cluster, last]
        last = starts[cluster] - 1
    return starts


def _shift(first: Float64, second: Float64, starts: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Return the best partition whose borders each lie between the neighbours of the present one.

    Where every place is tried, a partition that cannot be bettered so is optimal: the error is a
    path of k links whose weights satisfy the quadrangle inequality, and such paths can be swapped
    for interlacing ones (Aggarwal, Schieber and Tokuyama, "Finding a minimum-weight k-link path in
    graphs with the concave Monge property", 1994). Of wide clusters only some places are tried,
    denser near present borders; clusters that are missing begin at the end.

    Args:
        first, second: sums of the first i values and of their squares, i = 0 ... n.
        starts: where clusters start, at most k.
    Returns:
        starts of at most k clusters, none empty; the error is no greater.
    """
    n = len(first) - 1
    steps = np.linspace(0, 1, 1 + round(_SHIFT_STEPS / k**0.5))
    steps = (steps + np.sin(np.pi / 2 * steps) ** 2) / 2
    borders = np.concatenate([starts, np.full(k + 1 - len(starts), n)])
    gaps = np.diff(borders)[:, None]
    down = np.rint(gaps[:-1] * steps[:0:-1]).astype(np.int64)
    up = np.rint(gaps[1:] * steps).astype(np.int64)
    places = borders[1:-1, None] + np.concatenate([-down, up], axis=1)
    # cost[i, b, a]: squared error of the cluster from places[i, a] to places[i + 1, b].
    sums, squares, count = first[places], second[places], places.astype(np.float64)
    size = count[1:, :, None] - count[:-1, None, :]
    cost = sums[1:, :, None] - sums[:-1, None, :]
    cost *= cost
    cost /= np.maximum(size, 1)
    np.subtract(squares[1:, :, None], cost, out=cost)
    cost -= squares[:-1, None, :]
    cost[size < 0] = np.inf
    best = squares[0] - sums[0] ** 2 / np.maximum(count[0], 1)
    choices = np.zeros(places.shape, np.int64)
    for border, total in enumerate(cost, 1):
        total += best
        choices[border] = total.argmin(axis=1)
        best = total[np.arange(len(best)), choices[border]]
    rest = (first[n] - sums[-1]) ** 2 / np.maximum(n - count[-1], 1)
    chosen = int((best + second[n] - squares[-1] - rest).argmin())
    shifted = np.zeros(k, np.int64)
    for border in range(k - 2, -1, -1):
        shifted[border + 1] = places[border, chosen]
        chosen = choices[border, chosen]
    shifted = np.unique(shifted)
    return shifted[shifted < n]


def _error(first: Float64, second: Float64, starts: NDArray[np.int64]) -> float:
    """Return the sum of squared distances of all values to the mean of their cluster."""
    borders = np.append(starts, len(first) - 1)
    return float(second[-1] - (np.diff(first[borders]) ** 2 / np.diff(borders)).sum())


def _means(ordered: Float64, first: Float64, starts: NDArray[np.int64]) -> Float64:
    borders = np.append(starts, len(ordered))
    return np.asarray(np.diff(first[borders]) / np.diff(borders) + ordered[len(ordered) // 2])


def _lloyd(
    ordered: Float64, first: Float64, starts: NDArray[np.int64], steps: int
) -> NDArray[np.int64]:
    """Alternate means and nearest-centroid borders until nothing moves; return the borders."""
    for _ in range(steps):
        centroids = _means(ordered, first, starts)
        moved = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        moved = np.unique(np.concatenate([[0], moved]))
        if np.array_equal(moved, starts):
            break
        starts = moved
    return starts
