"""What is read of a GPU by NVML, with a stand-in for it."""

import sys
from types import SimpleNamespace

import pytest
import torch

from lungseg.system import nvml
from lungseg.system.memory import PeakMemory
from lungseg.system.nvml import Gpu, NoNvmlError, describe_gpu, format_gpu
from tests.fake_nvml import make_nvml, own_process

CUDA = torch.device("cuda")
STATE = {
    "GetClockInfo": 1755,
    "GetPowerUsage": 512_300,
    "GetTemperature": 61,
    "GetCurrentClocksEventReasons": 4 | 32,  # bits of the stand-in: power cap, thermal slowdown
}


@pytest.fixture
def card(monkeypatch):
    """A function that puts a GPU of known answers in the place of the real one, if there is any."""

    def put(**known):
        monkeypatch.setitem(sys.modules, "pynvml", make_nvml(known))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a GPU")
        monkeypatch.setattr(torch.backends.cudnn, "version", lambda: 91002)
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="ours"))

    return put


def test_the_state_is_in_usual_units_and_says_what_holds_the_clock_down(card):
    card(**STATE)
    assert Gpu("ours").read_state() == {
        "sm_clock_mhz": 1755,
        "power_w": 512.3,
        "temperature_c": 61,
        "throttle": ["power cap", "thermal slowdown"],
    }


def test_what_a_gpu_does_not_tell_is_none_and_no_error(card):
    card()
    state = {"sm_clock_mhz": None, "power_w": None, "temperature_c": None, "throttle": []}
    assert Gpu("ours").read_state() == state
    assert Gpu("ours").read_process_mib() is None
    assert set(Gpu("ours").describe().values()) == {None, False}


def test_every_function_and_bit_is_one_of_the_real_library():
    pynvml = pytest.importorskip("pynvml")
    for name in vars(make_nvml({})):
        assert hasattr(pynvml, name), name
    assert {f"nvmlClocksEventReason{name}" for name in nvml.REASONS} <= set(vars(pynvml))


def test_a_part_of_a_divided_gpu_is_found_and_its_limits_are_those_of_the_whole(card, monkeypatch):
    card()
    known = {"driver": "580.1", "GetDeviceHandleFromMigDeviceHandle": "board"}
    fake = make_nvml(known, uuid="MIG-ours")
    fake.nvmlDeviceGetEnforcedPowerLimit = {"board": 700_000}.get  # a part has none
    fake.nvmlDeviceGetComputeRunningProcesses = {"MIG-ours": [own_process(5)]}.get
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    found = describe_gpu()
    assert (found["mig"], found["driver"], found["power_limit_w"]) == (True, "580.1", 700)
    assert Gpu("ours").read_process_mib() == 5


def test_the_driver_is_known_also_of_a_gpu_that_is_not_found(card, monkeypatch):
    card()
    monkeypatch.setitem(sys.modules, "pynvml", make_nvml({"driver": "580.1"}, uuid="another"))
    found = describe_gpu()
    assert (found["driver"], found["nvml"]) == ("580.1", "NVML: Not Found")


def test_memory_is_that_of_this_process_alone(card):
    other = SimpleNamespace(pid=1, usedGpuMemory=9 * 2**30)
    card(GetComputeRunningProcesses=[[other, own_process(700)], [other], [own_process(None)]])
    gpu = Gpu("ours")
    assert [gpu.read_process_mib() for _ in range(3)] == [700, None, None]


def test_the_record_has_what_speed_depends_on(card, monkeypatch):
    card(driver="580.1", GetEnforcedPowerLimit=700_000, GetMaxClockInfo=1980, GetEccMode=[[1, 1]])
    found = describe_gpu()
    assert (found["name"], found["driver"], found["power_limit_w"]) == ("a GPU", "580.1", 700)
    assert (found["ecc"], found["mig"], found["largest_sm_clock_mhz"]) == (True, False, 1980)
    assert (found["cuda"], found["cudnn"]) == (torch.version.cuda, 91002)
    assert format_gpu(found).startswith(f"cuda {torch.version.cuda}, cudnn 91002, driver 580.1")
    assert format_gpu(found).endswith(
        "power limit 700 W, largest sm clock 1980 MHz, largest memory clock 1980 MHz, mig off, ecc on"
    )
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert describe_gpu()["nvml"] == "the package nvidia-ml-py is not installed"
    with pytest.raises(NoNvmlError, match="not installed"):
        Gpu("ours")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert describe_gpu() is None


def test_memory_on_a_gpu_is_four_numbers_and_on_a_cpu_that_of_the_host(card, monkeypatch):
    card(GetComputeRunningProcesses=[[own_process(900)]])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda _: None)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda _: 300 * 2**20)
    monkeypatch.setattr(torch.cuda, "max_memory_reserved", lambda _: 400 * 2**20)
    with PeakMemory(CUDA) as peak:
        pass
    cells = peak.list_cells()
    assert cells.pop("host_memory_mib") > 50
    assert list(cells.values()) == [300, 400, 900]
    with PeakMemory(torch.device("cpu")) as peak:
        pass
    cells = peak.list_cells()
    assert cells["peak_memory_mib"] == cells["host_memory_mib"] > 50
    assert cells["reserved_memory_mib"] is cells["process_memory_mib"] is None
