"""The recording of a CUDA graph and what is left of one that fails, with stand-ins for torch's classes."""

import gc
import weakref

import pytest
import torch

from lungseg.learning.cuda_graphs import WARM_UP, record_graph

MASKED = "CUDA error: operation failed due to a previous error during capture"


class FakeCuda:
    """What torch.cuda does while it records: streams, a graph, and an end that raises after any error."""

    def __init__(self, monkeypatch) -> None:
        self.calls, self.current, self.recorded = [], "main", []
        fake = self

        class Stream:
            def wait_stream(self, other):
                fake.calls.append("wait")

        class Chosen:
            """As torch.cuda.stream: at its end the stream is that of its beginning."""

            def __init__(self, stream):
                self.stream = stream

            def __enter__(self):
                self.before, fake.current = fake.current, self.stream

            def __exit__(self, *_):
                fake.current = self.before

        class Graph:
            def replay(self):
                fake.calls.append("replay")

            def reset(self):
                fake.calls.append("reset")
                raise RuntimeError(MASKED)

        class Recording:
            """As torch.cuda.graph: an end that raises leaves the stream as it is."""

            def __init__(self, graph, pool, capture_error_mode):
                fake.recorded.append((pool, capture_error_mode))

            def __enter__(self):
                self.before, fake.current = fake.current, "recording"

            def __exit__(self, kind, *_):
                if kind is not None or fake.end_fails:
                    raise RuntimeError(MASKED)
                fake.current = self.before

        class Generator:
            state = "capturing"

            def clone_state(self):
                return "ended"

            def graphsafe_set_state(self, state):
                self.state = state

        self.end_fails, self.generator = False, Generator()
        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: _Current(self))
        monkeypatch.setattr(torch.cuda, "stream", Chosen)
        monkeypatch.setattr(torch.cuda, "CUDAGraph", Graph)
        monkeypatch.setattr(torch.cuda, "graph", Recording)
        monkeypatch.setattr(torch.cuda, "default_generators", (self.generator,))


class _Current:
    def __init__(self, fake: FakeCuda) -> None:
        self.fake, self.name = fake, fake.current

    def wait_stream(self, other) -> None:
        self.fake.calls.append("wait")

    def __eq__(self, other) -> bool:
        return self.name == getattr(other, "name", other)

    __hash__ = None


@pytest.fixture
def cuda(monkeypatch) -> FakeCuda:
    return FakeCuda(monkeypatch)


def fail_in_recording(cuda: FakeCuda, error: Exception):
    """A call that works in the warm-up and raises while it is recorded."""

    def call():
        if cuda.current == "recording":
            raise error

    return call


def test_a_graph_is_recorded_after_warm_up_in_the_given_pool(cuda):
    result, replay = record_graph(lambda: cuda.calls.append("call") or 5, "pool")
    replay()
    assert (result, cuda.recorded) == (5, [("pool", "thread_local")])
    assert cuda.calls == ["wait", *["call"] * WARM_UP, "wait", "call", "replay"]
    assert cuda.current == "main"
    assert cuda.generator.state == "capturing"  # nobody touched it


def test_a_recording_that_fails_tells_why_and_leaves_the_process_as_it_was(cuda):
    call = fail_in_recording(cuda, RuntimeError("operation not permitted when stream is capturing"))
    with pytest.raises(RuntimeError, match="not permitted"):
        record_graph(call)
    assert cuda.current == "main"
    assert cuda.calls[-1] == "reset"
    assert cuda.generator.state == "ended"


def test_an_end_that_fails_by_itself_is_told(cuda):
    cuda.end_fails = True
    with pytest.raises(RuntimeError, match="previous error"):
        record_graph(lambda: None)
    assert cuda.current == "main"


def test_a_full_memory_beneath_other_errors_is_told(cuda):
    def call():
        try:
            fail_in_recording(cuda, torch.OutOfMemoryError("CUDA out of memory"))()
        except RuntimeError:
            raise RuntimeError("the library has no other algorithm")  # noqa: B904 (as in torch: no "from")

    with pytest.raises(torch.OutOfMemoryError):
        record_graph(call)


def test_a_full_memory_that_was_handled_before_is_another_matter(cuda):
    call = fail_in_recording(cuda, RuntimeError("not permitted"))
    try:
        raise torch.OutOfMemoryError("CUDA out of memory")
    except torch.OutOfMemoryError:
        with pytest.raises(RuntimeError, match="not permitted"):
            record_graph(call)


def test_the_error_keeps_no_tensor_once_it_was_handled(cuda):
    kept = []

    def call():
        tensor = torch.ones(3)
        kept.append(weakref.ref(tensor))
        if cuda.current == "recording":
            raise torch.OutOfMemoryError("CUDA out of memory")

    gc.disable()
    try:
        with pytest.raises(torch.OutOfMemoryError):
            record_graph(call)
        assert kept[-1]() is None
    finally:
        gc.enable()
