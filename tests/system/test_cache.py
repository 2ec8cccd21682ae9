from lungseg.system.cache import find_cache_folder


def test_where_the_cache_lies(tmp_path, monkeypatch):
    assert find_cache_folder("audit").parts[-2:] == ("lungseg", "audit")
    monkeypatch.delenv("LUNGSEG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert find_cache_folder("audit") == tmp_path / "lungseg" / "audit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_cache_folder("audit") == tmp_path / ".cache" / "lungseg" / "audit"
