"""A server of models: HTTP on top of the step scheduler, so that requests of many share steps."""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.serve.application import Application
    from difftool.serve.autoscaling import QueueWait
    from difftool.serve.fields import ARRAYS, INPUTS, PREVIEWS
    from difftool.serve.replicas import RayArguments, on_ray
    from difftool.serve.server import read_keys, require_safe, serve
    from difftool.serve.settings import ServeSettings
    from difftool.serve.triton.model import TritonPythonModel

__all__ = [
    "ARRAYS",
    "INPUTS",
    "PREVIEWS",
    "Application",
    "QueueWait",
    "RayArguments",
    "ServeSettings",
    "TritonPythonModel",
    "on_ray",
    "read_keys",
    "require_safe",
    "serve",
]

_HOMES = {
    "ARRAYS": "difftool.serve.fields",
    "INPUTS": "difftool.serve.fields",
    "PREVIEWS": "difftool.serve.fields",
    "Application": "difftool.serve.application",
    "QueueWait": "difftool.serve.autoscaling",
    "RayArguments": "difftool.serve.replicas",
    "ServeSettings": "difftool.serve.settings",
    "on_ray": "difftool.serve.replicas",
    "TritonPythonModel": "difftool.serve.triton.model",
    "read_keys": "difftool.serve.server",
    "require_safe": "difftool.serve.server",
    "serve": "difftool.serve.server",
}

__getattr__ = lazily(__name__, _HOMES)
