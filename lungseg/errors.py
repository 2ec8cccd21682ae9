"""The error a user can do something about, and how a full memory shows."""


class InputError(Exception):
    """Something that a user gave (a file, a key, a flag) can't be used.

    Its text is one sentence that names the file or key and says what to do.
    The command line prints it without a traceback and exits with code 2.
    """


# A CPU's full memory is a plain RuntimeError of torch's allocator, a GPU's may be one of a library's codes.
_FULL = ("out of memory", "can't allocate memory", "ALLOC_FAILED")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of Python or torch says that a memory, the host's or the device's, is full."""
    if isinstance(error, MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _FULL)
