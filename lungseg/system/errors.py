"""The error a user can do something about, how a full memory shows, and what tables quote of either."""

import re


class InputError(Exception):
    """Something that a user gave (a file, a key, a flag) can't be used.

    Its text is one sentence that names the file or key and says what to do.
    The command line prints it without a traceback and exits with code 2.
    """


# A path from the root of a file system (or a Windows drive), but not the second half of "a/b" or of a URL.
_ABSOLUTE = re.compile(r"(?<![\w./:~-])(?:[A-Za-z]:)?(?:~?[/\\][\w.+@-]+){2,}[/\\]?")
# A CPU's full memory is a plain RuntimeError of torch's allocator, a GPU's may be one of a library's codes.
_FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that a memory, the host's or the device's, is full."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)


def first_line(error: BaseException) -> str:
    """What an error says first; of one that wraps another, as torch.compile's do, what that one says."""
    inner = getattr(error, "inner_exception", None) or error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0]


def without_folders(text: str) -> str:
    """Shortens each absolute path in `text` to its last part: they mean nothing on another machine."""
    return _ABSOLUTE.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)
