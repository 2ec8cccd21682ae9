import subprocess


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """One sentence on standard error that has the words, exit code 2, no traceback."""
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("lungseg: ")
    assert done.stderr.count("\n") == 1
    for word in words:
        assert word in done.stderr, done.stderr
