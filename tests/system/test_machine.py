from importlib.metadata import PackageNotFoundError, version

import pytest

from lungseg.system import machine
from lungseg.system.machine import describe_version, list_versions


@pytest.mark.parametrize("revision", [None, {"revision": "0123456789ab", "dirty": True}])
def test_a_checkout_that_is_not_installed_has_versions_all_the_same(monkeypatch, revision):
    def find(name):
        if name == "lungseg":
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(machine, "version", find)
    monkeypatch.setattr(machine, "packages_distributions", dict)
    monkeypatch.setattr(machine, "find_git_revision", lambda: revision)
    machine._version.cache_clear()
    assert list_versions()["lungseg"] == "not installed"
    more = "" if revision is None else " (revision 0123456789ab, changed)"
    assert describe_version() == f"lungseg not installed{more}"
    machine._version.cache_clear()


def test_versions_name_what_computes_and_what_is_missing(monkeypatch):
    found = list_versions()
    assert found["llvmlite"] == version("llvmlite")
    assert "triton" in found
    monkeypatch.setattr(machine, "PACKAGES", ("no-such-package-here",))
    assert list_versions()["no-such-package-here"] == "not installed"
