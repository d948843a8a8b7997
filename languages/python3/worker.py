"""Starts a worker. What it is made of stands beside this file, compiled where the server could."""

import os
import sys
from _frozen_importlib_external import SourceFileLoader

HERE = os.path.dirname(os.path.abspath(__file__)) + "/"


def beside(name):
    """Runs a file that stands beside this one, as a module that no source can be confused with."""
    name, path = "_dispatch_" + name, HERE + name + ".py"
    module = sys.modules[name] = type(sys)(name)
    exec(SourceFileLoader(name, path).get_code(name), vars(module))
    return module


if __name__ == "__main__":
    beside("calls").main()
