"""Logits on the board equal the integer reference's."""

import numpy as np


def test_logits_of_the_whole_split(bench):
    differing = int((bench.measured.logits != bench.logits).sum())
    bench.report.logits(bench.logits.size, differing)
    assert differing == 0


def test_sent_features_give_the_same_logits(bench, dut):
    dut.send_features(bench.features[0])
    np.testing.assert_array_equal(dut.infer().logits, bench.logits[0])


def test_sent_pcm_gives_the_same_logits_twice(bench, dut):
    last = len(bench.pcm) - 1
    dut.send_pcm(bench.pcm[last])
    for _ in range(2):
        np.testing.assert_array_equal(dut.infer().logits, bench.logits[last])
