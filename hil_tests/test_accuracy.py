"""Answers of the board over the data set against the reference's, and its accuracy."""

import numpy as np

from quads_mcu.export.reference import decide


def test_accuracy(bench):
    measured = bench.measured
    answers, rejected = decide(bench.model, bench.logits)
    bench.report.accuracy(bench.split, bench.clips, answers, measured.answers, measured.rejected)
    np.testing.assert_array_equal(measured.answers, answers)
    np.testing.assert_array_equal(measured.rejected, rejected)
