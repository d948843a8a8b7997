"""Finds and imports the handler."""

import os
import sys

from __main__ import beside
from _dispatch_calls import LoadError

LAYER = "layer"


def load(source, handler):
    """Imports the handler. Returns its full name and the function."""
    sys.path.insert(0, source)
    foreign = kind = None
    if ":" in handler:
        foreign = beside("foreign")
        kind, handler = foreign.split(handler)
    # It stands beside the source. The place is there without a layer too, but empty.
    layer = os.path.join(os.path.dirname(source), LAYER)
    if os.path.isdir(layer) and os.listdir(layer):
        import site

        site.addsitedir(layer)
    module_name, function_name = resolve(source, handler)
    name = handler or module_name + "." + function_name
    module = import_module(source, module_name, name)
    function = module
    for part in function_name.split("."):
        function = getattr(function, part, None)
    if function is None:
        raise LoadError(
            'handler "%s": module %s has no function %s%s'
            % (name, module_name, function_name, suggest(module))
        )
    if not callable(function):
        raise LoadError(
            'handler "%s": %s is a %s and not a function'
            % (name, function_name, type(function).__name__)
        )
    full = module_name + "." + function_name
    if kind is not None:
        return kind + ":" + full, foreign.wrap(kind, function)
    if not takes_two(function):
        raise LoadError(
            'handler "%s": the function must take two positional arguments, context and payload'
            % name
        )
    return full, function


def resolve(source, handler):
    """The module and the function that a handler means."""
    files = sorted(name for name in os.listdir(source) if name.endswith(".py"))
    if not handler:
        if len(files) != 1:
            raise LoadError(
                "Exactly 1 source file needed when HANDLER is empty, but there are %d%s; name the "
                "handler, such as hello.handle"
                % (len(files), (": " + ", ".join(files[:10])) if files else "")
            )
        return files[0][:-3], "handle"
    path, _, function = handler.partition("::")
    if path.startswith("./"):
        path = path[2:]
    if path.endswith(".py"):
        module = path[:-3].replace("/", ".")
    elif function or "." not in path:
        module = path.replace("/", ".")
    else:
        module, _, function = path.replace("/", ".").rpartition(".")
    if not module or not all(part.isidentifier() for part in module.split(".")):
        raise LoadError(
            'handler "%s" is not the name of a function; write module.function, such as '
            "hello.handle" % handler
        )
    return module, function or "handle"


def import_module(source, name, handler):
    top = name.partition(".")[0]
    if top in sys.modules and exists(source, top):
        # A source may be called like a module that this worker has imported already.
        del sys.modules[top]
    try:
        # As importlib would, which is a module of its own.
        __import__(name)
        return sys.modules[name]
    except ModuleNotFoundError as error:
        if error.name == name or name.startswith(str(error.name) + "."):
            raise LoadError(
                'handler "%s": there is no module %s in the source' % (handler, name)
            ) from None
        raise


def exists(source, name):
    path = os.path.join(source, name)
    return os.path.exists(path + ".py") or os.path.isdir(path)


def suggest(module):
    names = [
        name
        for name, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    ]
    return "; it has " + ", ".join(names[:10]) if names else ""


def takes_two(function):
    code = getattr(function, "__code__", None)
    if type(function).__name__ == "function" and not hasattr(function, "__wrapped__"):
        required = code.co_argcount - len(function.__defaults__ or ())
        most = sys.maxsize if code.co_flags & 0x04 else code.co_argcount
        keywords = len(function.__kwdefaults__ or ()) == code.co_kwonlyargcount
        return required <= 2 <= most and keywords
    import inspect

    try:
        inspect.signature(function).bind(None, None)
    except TypeError:
        return False
    except ValueError:
        pass  # Some built-in ones have no signature.
    return True


def is_async(function):
    code = getattr(function, "__code__", None) or getattr(
        getattr(function, "__call__", None), "__code__", None
    )
    return code is not None and bool(code.co_flags & 0x80)
