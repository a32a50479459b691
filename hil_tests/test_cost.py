"""Memory, work and energy: what was predicted and what the board says."""

import numpy as np

from quads_mcu.device import firmware_sizes, memory


def test_memory(bench):
    stats = bench.measured.stats
    bench.report.memory(stats)
    assert stats.arena_used_bytes <= bench.measured.hello.arena_bytes
    assert stats.frames_damaged == 0


def test_memory_was_predicted(bench):
    cost, build = bench.report.cost, bench.report.build
    assert build.weight_bytes == cost.weight_bytes
    assert bench.measured.stats.arena_used_bytes <= cost.arena_bytes
    predicted = {one.region: one for one in memory.place(bench.board, cost.needs)}
    assert predicted.keys() == {one.region for one in build.regions}
    # Exact for the compiler that the board's firmware was measured with.
    exact = build.compiler == firmware_sizes.compiler(bench.board)
    for one in build.regions:
        allowed = 0 if exact else 0.03 * one.used_bytes
        assert abs(one.used_bytes - predicted[one.region].used_bytes) <= allowed


def test_instructions(bench):
    measured = bench.measured
    bench.report.latency(measured.instructions)
    if measured.hello.counts_instructions:
        assert (measured.instructions.sum(axis=1) > 0).all()
        # The encoder does the same work for every utterance up to data-dependent rounding paths.
        encoder = measured.instructions[:, 1:].sum(axis=1)
        assert np.ptp(encoder) < 0.05 * encoder.mean()
