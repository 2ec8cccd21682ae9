import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lungseg.timing.energy import (
    EnergyCounter,
    NoEnergyCounterError,
    NvmlCounter,
    RaplCounter,
    measure_joules_per_image,
    open_counter,
)
from tests.fake_nvml import make_nvml


def zone(folder: Path, place: str, name: str, microjoules: int, limit: int = 1_000_000) -> Path:
    (folder / place).mkdir(parents=True)
    (folder / place / "name").write_text(f"{name}\n")
    (folder / place / "max_energy_range_uj").write_text(f"{limit}\n")
    (folder / place / "energy_uj").write_text(f"{microjoules}\n")
    return folder / place / "energy_uj"


def test_rapl_adds_up_packages_alone_and_knows_that_counters_wrap(tmp_path):
    first = zone(tmp_path, "intel-rapl:0", "package-0", 100_000)
    second = zone(tmp_path, "intel-rapl:1", "package-1", 900_000)
    core = zone(tmp_path, "intel-rapl:0:0", "core", 50_000)  # a part of package-0
    platform = zone(tmp_path, "intel-rapl:2", "psys", 10)  # the packages and more
    counter = RaplCounter(tmp_path)
    before = counter.read()
    first.write_text("350000")
    second.write_text("400000")  # wrapped at 1,000,000: 500,000 more
    core.write_text("200000")
    platform.write_text("999999")
    assert counter.joules(before, counter.read()) == pytest.approx(0.25 + 0.5)


def test_no_rapl_and_rapl_for_root_alone_are_reasons(tmp_path, monkeypatch):
    with pytest.raises(NoEnergyCounterError, match="shows no energy counter"):
        RaplCounter(tmp_path / "missing")
    counted = zone(tmp_path, "intel-rapl:0", "package-0", 1)
    read_text = Path.read_text

    def read(path, *arguments, **named):
        if path == counted:
            raise PermissionError(13, "Permission denied")
        return read_text(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", read)
    with pytest.raises(NoEnergyCounterError, match="only root"):
        RaplCounter(tmp_path)
    monkeypatch.undo()
    counted.write_text("unknown")
    with pytest.raises(NoEnergyCounterError, match="can't be read"):
        RaplCounter(tmp_path)


def test_nvml_reads_the_device_that_torch_uses(monkeypatch):
    nvml = make_nvml({"GetTotalEnergyConsumption": [1_000, 2_000, 5_500]})
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="ours"))
    counter = open_counter(torch.device("cuda"))
    assert counter.joules(counter.read(), counter.read()) == pytest.approx(3.5)


@pytest.mark.parametrize(
    ("nvml", "reason"),
    [
        (None, "nvidia-ml-py is not installed"),
        (make_nvml({}, "GPU-other"), "NVML: Not Found"),
        (make_nvml({}), "NVML: Not Supported"),
        (make_nvml({"GetTotalEnergyConsumption": [1], "GetMigMode": (1, 1)}), "MIG"),
    ],
)
def test_a_gpu_without_a_counter_of_its_own_is_a_reason(monkeypatch, nvml, reason):
    monkeypatch.setitem(sys.modules, "pynvml", nvml)
    with pytest.raises(NoEnergyCounterError, match=reason):
        NvmlCounter("ours")


def test_joules_are_shared_by_all_images_of_all_calls():
    calls = []

    class Steady(EnergyCounter):
        """Six joules a call."""

        def read(self):
            return (6 * len(calls),)

        def joules(self, before, after):
            return float(after[0] - before[0])

    more = measure_joules_per_image([Steady(), Steady()], lambda: calls.append(1), images=4, seconds=0.01)
    assert more == pytest.approx([1.5, 1.5])
    assert len(calls) > 1
    assert measure_joules_per_image([Steady()], lambda: calls.append(1), 3, 0) == pytest.approx([2])
