"""What all attacks use."""

import errno
import os

ATTACKS = {}
# Without namespaces it is not /tmp.
TMP = os.environ.get("TMPDIR", "/tmp")


def attack(function):
    ATTACKS[function.__name__.replace("_", "-")] = function
    return function


def succeeded(*what):
    return " ".join(["SUCCEEDED", *(repr(each)[:300] for each in what)])


def try_to(function, facts):
    """The result, or the name of the error that stopped it."""
    try:
        return function(facts)
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def reads(path):
    with open(path, "rb") as file:
        return succeeded(file.read(64))


def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))
    return succeeded()
