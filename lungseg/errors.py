"""The error a user can do something about."""


class InputError(Exception):
    """Something that a user gave (a file, a key, a flag) can't be used.

    Its text is one sentence that names the file or key and says what to do.
    The command line prints it without a traceback and exits with code 2.
    """
