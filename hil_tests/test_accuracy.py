"""Accuracy of the board over the data set, with its interval, against the thresholds."""

import numpy as np


def test_accuracy(bench):
    measured = bench.measured
    bench.report.accuracy(bench.split, bench.clips, bench.logits.argmax(axis=1), measured.intents)
    np.testing.assert_array_equal(measured.intents, bench.logits.argmax(axis=1))
