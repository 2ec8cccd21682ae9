import pytest
import torch

from lungseg.system.runtime import keep_float32_precision, keep_process_state

BACKENDS = torch.backends


def read():
    places = (BACKENDS, BACKENDS.cuda.matmul, BACKENDS.cudnn.conv, BACKENDS.cudnn.rnn)
    places += (BACKENDS.mkldnn.matmul, BACKENDS.mkldnn.conv)
    return [place.fp32_precision for place in places]


def use_newer():
    BACKENDS.cuda.matmul.fp32_precision = "tf32"
    BACKENDS.cudnn.conv.fp32_precision = "ieee"


def use_outermost():
    BACKENDS.fp32_precision = "tf32"


@pytest.mark.parametrize(
    "change", [use_newer, use_outermost, lambda: torch.set_float32_matmul_precision("medium")]
)
def test_the_precision_of_float32_is_put_back_whichever_way_it_was_changed(change):
    before = read()
    with keep_float32_precision():
        change()
        assert read() != before
    assert read() == before
    assert torch.get_float32_matmul_precision() == "highest"  # readable again


def test_a_block_that_changes_nothing_sets_nothing(monkeypatch):
    """What was once set by itself no longer follows `torch.backends.fp32_precision`."""
    calls, setter = [], torch._C._set_fp32_precision_setter

    def note(*arguments):
        calls.append(arguments)
        return setter(*arguments)

    monkeypatch.setattr(torch._C, "_set_fp32_precision_setter", note)
    with keep_float32_precision():
        pass
    assert calls == []
    with keep_float32_precision():
        BACKENDS.cudnn.conv.fp32_precision = "ieee"
    assert calls == [("cuda", "conv", "ieee"), ("cuda", "conv", "tf32")]


def test_a_fit_that_uses_the_newer_interface_ends_neither_itself_nor_the_next():
    with keep_float32_precision():
        use_newer()  # as somebody may who runs this within a program of theirs
        theirs = read()
        with keep_process_state(torch.get_num_threads()):
            torch.set_float32_matmul_precision("high")
        assert read() == theirs
