"""The same work behind the Python functions-framework."""

import os
import sys

sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from hello import handle  # noqa: E402


def serve(request):
    return handle({}, request.get_json())
