"""The thresholds of quads.toml. Runs last: every figure is there by then."""


def test_thresholds(bench):
    bench.measured  # noqa: B018 - measured first, so that every figure is there
    missed = [line for line in bench.report.thresholds() if not line["met"]]
    assert not missed, missed
