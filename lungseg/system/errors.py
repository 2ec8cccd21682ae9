"""The error for wrong input, the test for full memory, and short quotes of errors for tables."""

import re


class InputError(Exception):
    """Something that the user gave (a file, a key, a flag) can't be used.

    The text is one sentence that names the file or key and says what to do. The command line prints it
    without a traceback and exits with code 2.
    """

    exit_code = 2


class TrialsFailedError(InputError):
    """No approach of a benchmark has any row, because a trial of each failed."""

    exit_code = 1


class UnwritableError(InputError):
    """A place can't be written, so nothing further can be stored there."""


# A path from the root of a file system (or a Windows drive), but not the second half of "a/b" or of a URL.
# Folders may have spaces within their names; the last word may not, since a sentence goes on behind it.
_LETTER = r"""(?:[^/\\\s:;'"<>|]|(?<=\w)'(?=\w))"""
_FOLDER = rf"[/\\]{_LETTER}+(?: {_LETTER}+)*"
_ABSOLUTE = re.compile(rf"(?<![\w./:~-])(?:[A-Za-z]:)?~?(?:{_FOLDER}(?=[/\\]))+[/\\][\w.+@-]*")
# A CPU's full memory is a plain RuntimeError of torch's allocator, a GPU's may be one of a library's codes:
# cuBLAS can't make its handle then, and cuDNN finds no algorithm whose workspace fits.
_FULL = (
    *("out of memory", "can't allocate memory", "ALLOC_FAILED", "ALLOCATION_FAILED"),
    *("CUBLAS_STATUS_NOT_INITIALIZED", "unable to find an engine to execute this computation"),
)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch means that the host's or the device's memory is full."""
    full = isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
    return full or isinstance(error, MemoryError)


def summarise_error(error: BaseException) -> str:
    """Return the first line of an error's text, or of the error inside it, as those of torch.compile have."""
    inner = getattr(error, "inner_exception", None) or error
    return (str(inner).strip().splitlines() or [type(inner).__name__])[0]


def describe_error(error: BaseException) -> str:
    """Return the type of an error and the first line of its text."""
    return f"{type(error).__name__} ({summarise_error(error)})" if str(error) else type(error).__name__


def shorten_paths(text: str) -> str:
    """Return a text with each absolute path cut to its last part; paths mean nothing on another machine."""
    return _ABSOLUTE.sub(lambda match: re.split(r"[/\\]", match[0].rstrip("/\\"))[-1], text)
