from importlib.metadata import version

from lungseg.system import machine
from lungseg.system.machine import list_versions


def test_versions_name_what_computes_and_what_is_missing(monkeypatch):
    found = list_versions()
    assert found["llvmlite"] == version("llvmlite")
    assert "triton" in found
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package-here",))
    assert list_versions()["no-such-package-here"] == "not installed"
