"""Codebooks: near-optimal one-dimensional k-means and assignment to the nearest centroid.

In one dimension clusters are intervals, so everything works on sorted values and prefix sums:
a dynamic programme over at most a thousand bins finds the intervals, then Lloyd's algorithm moves
their borders between single values. No distance matrix is ever formed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from quads_mcu.errors import TrainingError

INT8_MAX = 127
_LLOYD_STEPS = 200
_ROW_STEPS = 3
_HISTOGRAM_BINS = 4096
# Longest cluster the dynamic programme considers, in multiples of the average one.
_LONGEST = 16
# Up to this many distinct values the dynamic programme is exact.
_EXACT_VALUES = 2048

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]


def fit(values: NDArray[Any], bits: int) -> Float32:
    """Fit a codebook by k-means: minimize the sum of squared distances to the nearest centroid.

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
    edges = _bins(ordered, 1024 if k > 16 else 512)
    first = np.concatenate([[0.0], np.cumsum(ordered - ordered[0])])
    second = np.concatenate([[0.0], np.cumsum((ordered - ordered[0]) ** 2)])
    starts = edges[_partition(edges, first, second, k)]
    # A mean is a difference of running sums: rounding may place it outside the values themselves.
    centroids = np.clip(_lloyd(ordered, first, starts), ordered[0], ordered[-1])
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


def _bins(ordered: Float64, count: int) -> NDArray[np.int64]:
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
        cuts = np.interp(np.linspace(0, share[-1], count + 1)[1:-1], share, borders)
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
    before = start - 1
    best = np.where(start[:, 0] == 0, cost[:, 0], np.inf)
    best[: min(longest, n_bins)] = cost[np.arange(longest), np.arange(longest)]
    choices = np.zeros((k, n_bins), np.int64)
    for cluster in range(1, k):
        total = np.where(before >= 0, best[before], np.inf) + cost
        choices[cluster] = total.argmin(axis=1)
        best = np.take_along_axis(total, choices[cluster][:, None], axis=1)[:, 0]
    starts = np.zeros(k, np.int64)
    last = n_bins - 1
    for cluster in range(k - 1, 0, -1):
        starts[cluster] = last - choices[cluster, last]
        last = starts[cluster] - 1
    return starts


def _lloyd(ordered: Float64, first: Float64, starts: NDArray[np.int64]) -> Float64:
    """Alternate means and nearest-centroid borders until nothing moves."""
    offset = ordered[0]
    for _ in range(_LLOYD_STEPS):
        borders = np.append(starts, len(ordered))
        centroids = np.diff(first[borders]) / np.diff(borders) + offset
        moved = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        moved = np.unique(np.concatenate([[0], moved]))
        if np.array_equal(moved, starts):
            break
        starts = moved
    return np.asarray(centroids, np.float64)
