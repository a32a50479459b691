"""The transform of both frontends: 400 real samples as 16 x 25, in either one's arithmetic.

The last axis of every array runs over frames.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[Any]


@dataclass(frozen=True)
class Arithmetic:
    """How numbers are multiplied.

    scale: array times constant; quarter: array over 4; scalars: `sin_72`, `sin_144`, `root5_4`,
    `cos_22`, `sin_22`, `cos_45`; twiddles: (4, 4, 2), [b - 1][k - 1] (cos, sin).
    """

    scale: Callable[[Numbers, Any], Numbers]
    quarter: Callable[[Numbers], Numbers]
    scalars: Mapping[str, Any]
    twiddles: Numbers

    def turn(self, re: Numbers, im: Numbers, cos: Any, sin: Any) -> tuple[Numbers, Numbers]:
        """Return (re + i im) (cos + i sin)."""
        scale = self.scale
        return scale(re, cos) - scale(im, sin), scale(re, sin) + scale(im, cos)


def dft16(x: Numbers, arithmetic: Arithmetic) -> Numbers:
    """Real 16-point DFTs down the columns: (16, 25, F) -> re, im of the rows (2, 8, 25, F)."""
    scale, turn, scalars = arithmetic.scale, arithmetic.turn, arithmetic.scalars
    cos_22, sin_22, cos_45 = scalars["cos_22"], scalars["sin_22"], scalars["cos_45"]
    out = np.empty((2, 8, *x.shape[1:]), x.dtype)
    s, d = x[:8] + x[8:], x[:8] - x[8:]

    # k1 = 0 and 8 (both real), 12, 14, 6
    ss, sd = s[:4] + s[4:], s[:4] - s[4:]
    even, odd = ss[0] + ss[2], ss[1] + ss[3]
    out[0, 0], out[1, 0] = even + odd, even - odd
    out[0, 1], out[1, 1] = ss[0] - ss[2], ss[1] - ss[3]
    m, p = scale(sd[1] - sd[3], cos_45), scale(sd[1] + sd[3], cos_45)
    out[0, 2], out[1, 2] = sd[0] + m, sd[2] + p
    out[0, 3], out[1, 3] = sd[0] - m, sd[2] - p

    # k1 = 15, 7, 3, 11: z_j = (d_j + i d_{j+4}) exp(i pi j / 8), then a 4-point DFT
    u1, g1 = turn(d[1], d[5], cos_22, sin_22)
    u2, g2 = scale(d[2] - d[6], cos_45), scale(d[6] + d[2], cos_45)
    u3, g3 = turn(d[3], d[7], sin_22, cos_22)
    pu, qu, ru, tu = d[0] + u2, d[0] - u2, u1 + u3, u1 - u3
    pg, qg, rg, tg = d[4] + g2, d[4] - g2, g1 + g3, g1 - g3
    out[0, 4], out[1, 4] = pu + ru, pg + rg
    out[0, 5], out[1, 5] = pu - ru, pg - rg
    out[0, 6], out[1, 6] = qu + tg, qg - tu
    out[0, 7], out[1, 7] = qu - tg, qg + tu
    return out


def dft25(rows: Numbers, arithmetic: Arithmetic) -> Numbers:
    """25-point DFTs along the rows: (2, 8, 25, F) -> the same shape, as 5 x 5 with twiddles."""
    n = rows.shape[-1]
    square = _dft5(rows.reshape(2, 8, 5, 5, n), 2, arithmetic)
    w = arithmetic.twiddles.transpose(1, 0, 2)[..., None]  # [k - 1][b - 1]
    re, im = square[0, :, 1:, 1:].copy(), square[1, :, 1:, 1:].copy()
    square[0, :, 1:, 1:], square[1, :, 1:, 1:] = arithmetic.turn(re, im, w[:, :, 0], w[:, :, 1])
    return _dft5(square, 3, arithmetic).reshape(2, 8, 25, n)


def _dft5(x: Numbers, axis: int, arithmetic: Arithmetic) -> Numbers:
    """Complex 5-point DFTs along `axis`; the first axis of x is (re, im)."""
    scale, scalars = arithmetic.scale, arithmetic.scalars
    sin_72, sin_144 = scalars["sin_72"], scalars["sin_144"]
    x = np.moveaxis(x, axis, 0)
    a, b = x[1] + x[4], x[1] - x[4]
    c, d = x[2] + x[3], x[2] - x[3]
    t = a + c
    mean = x[0] - arithmetic.quarter(t)
    swing = scale(a - c, scalars["root5_4"])
    p, q = mean + swing, mean - swing
    u = scale(b, sin_72) + scale(d, sin_144)
    v = scale(b, sin_144) - scale(d, sin_72)
    y = np.empty_like(x)
    y[0] = x[0] + t
    y[1, 0], y[1, 1] = p[0] + u[1], p[1] - u[0]
    y[4, 0], y[4, 1] = p[0] - u[1], p[1] + u[0]
    y[2, 0], y[2, 1] = q[0] + v[1], q[1] - v[0]
    y[3, 0], y[3, 1] = q[0] - v[1], q[1] + v[0]
    return np.moveaxis(y, 0, axis)
