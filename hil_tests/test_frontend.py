"""Features on the board equal the numpy twin's, byte for byte."""

import numpy as np
import pytest


def test_features_of_the_whole_split(bench):
    differing = int((bench.measured.features != bench.features).sum())
    bench.report.features(bench.features.size, differing)
    assert differing == 0


@pytest.mark.parametrize("chunk_bytes", [2, 254, 640, None])
def test_features_do_not_depend_on_chunks(bench, dut, chunk_bytes):
    pcm = bench.pcm[0]
    if chunk_bytes == 2:
        pcm = pcm[:2000]
    expected = bench.features[0]
    if len(pcm) != len(bench.pcm[0]):
        from quads_mcu.audio.frontend import features

        window = np.zeros(bench.clips.pcm.shape[1], np.int16)
        window[: len(pcm)] = pcm
        dims = bench.model.dims
        expected = features(window, dims.n_mels, dims.n_frames, bench.model.frontend)
    dut.send_pcm(pcm, chunk_bytes=chunk_bytes)
    np.testing.assert_array_equal(dut.features(), expected)


def test_silence_is_a_window_too(bench, dut):
    dut.send_pcm(np.zeros(0, np.int16))
    assert (dut.features() == -128).all()
