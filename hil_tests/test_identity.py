"""The board runs this model, this protocol, this build."""

from quads_mcu import model_format, protocol


def test_board_says_who_it_is(bench, dut):
    hello = dut.hello()
    dims = bench.model.dims
    assert hello.board == bench.board.name
    assert hello.protocol_version == protocol.PROTOCOL_VERSION
    assert hello.format_version == model_format.FORMAT_VERSION
    assert hello.model_hash == bench.model.model_hash
    assert (hello.n_mels, hello.n_frames) == (dims.n_mels, dims.n_frames)
    assert hello.slots == tuple(len(slot.labels) for slot in bench.model.slots)
    assert hello.reject_threshold == bench.model.reject_threshold
    bench.report.hello(hello)


def test_link_carries_every_byte(dut):
    payload = bytes(range(256)) * 3
    assert dut.echo(payload) == payload
    assert dut.echo(b"") == b""
