"""A server of models: HTTP on top of the step scheduler, so that requests of many share steps."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.serve.application import Application
    from difftool.serve.fields import ARRAYS, INPUTS, PREVIEWS
    from difftool.serve.server import read_keys, require_safe, serve
    from difftool.serve.settings import ServeSettings
    from difftool.serve.triton.model import TritonPythonModel

__all__ = [
    "ARRAYS",
    "INPUTS",
    "PREVIEWS",
    "Application",
    "ServeSettings",
    "TritonPythonModel",
    "read_keys",
    "require_safe",
    "serve",
]

_HOMES = {
    "ARRAYS": "difftool.serve.fields",
    "INPUTS": "difftool.serve.fields",
    "PREVIEWS": "difftool.serve.fields",
    "Application": "difftool.serve.application",
    "ServeSettings": "difftool.serve.settings",
    "TritonPythonModel": "difftool.serve.triton.model",
    "read_keys": "difftool.serve.server",
    "require_safe": "difftool.serve.server",
    "serve": "difftool.serve.server",
}

__getattr__ = lazily(__name__, _HOMES)
