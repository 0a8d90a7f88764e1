"""What a server says of itself: its models, the samplers, and how much there is to do."""

import time
from dataclasses import asdict
from typing import Any

from difftool.diffusion import SAMPLERS, describe_sampler
from difftool.runtime import Model, find_bundle, is_image, shipped_models
from difftool.serve.service import Service


def model(name: str, model: Model) -> dict[str, Any]:
    """Return what a model draws, and what it can be asked."""
    spec, default = model.spec, model.bundle.manifest.program.call
    return {
        "id": name,
        "object": "model",
        "created": 0,
        "owned_by": "difftool",
        "bundle": model.bundle.manifest.digest,
        "shipped": model.bundle.path.name if _is_shipped(model) else None,
        "shape": list(spec.shape),
        "images": is_image(spec),
        "classes": spec.classes,
        "class_names": list(spec.class_names),
        "null_label": spec.null_label,
        "features": sorted(model.backend.features),
        "precision": model.precision,
        "program": str(default),
        "default": default.to_dict(),
        "samplers": list(SAMPLERS),
    }


def samplers() -> list[dict[str, Any]]:
    """Return the samplers, each with the types and defaults of its arguments."""
    return [
        {"id": name, "object": "sampler", **describe_sampler(sampler)}
        for name, sampler in SAMPLERS.items()
    ]


def status(service: Service) -> dict[str, Any]:
    """Return the limits of a request and what the schedulers have to do, for who looks often."""
    limits = {"n": service.settings.max_n, "num_inference_steps": service.settings.max_steps}
    return {
        "object": "status",
        "draining": service.draining,
        "seconds": round(time.monotonic() - service.since, 6),
        "limits": limits,
        "models": [{"id": name, **asdict(runner.load)} for name, runner in service.runners.items()],
    }


def _is_shipped(model: Model) -> bool:
    """Tell if everybody who has difftool has this model, by the name of its folder."""
    path = model.bundle.path
    return path.name in shipped_models() and path == find_bundle(path.name)
