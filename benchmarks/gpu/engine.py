"""An engine of TensorRT for RTX, built for one GPU, on another: does it run there?"""

from pathlib import Path
from typing import Any

from common.inside import open_device

import difftool
from difftool.errors import DifftoolError, first_line

BUILT_FOR, MODEL = "sm80", "ddpm-mnist"


def build_engine(folder: Path) -> Path:
    """Build the engine of a shipped model in a folder, if it is not there; a GPU is not needed."""
    path = folder / f"{MODEL}-{BUILT_FOR}-fp16.engine"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        difftool.compile.tensorrt(MODEL, gpus=(BUILT_FOR,), precision="fp16", out=path)
    return path


def load_engine(folder: Path) -> dict[str, Any]:
    """Say if the engine loads on this card, and gives a context; else the library's reason."""
    found: dict[str, Any] = {"built": BUILT_FOR, "on": "", "loads": None, "why": ""}
    try:
        found["on"] = open_device().arch
        import tensorrt_rtx as library

        data = build_engine(folder).read_bytes()
    except DifftoolError as error:
        return {**found, "why": error.message}
    except ImportError as error:
        return {**found, "why": first_line(error)}
    said: list[str] = []

    class Logger(library.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            library.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (library.ILogger.ERROR, library.ILogger.INTERNAL_ERROR):
                said.append(" ".join(message.split()))

    logger = Logger()  # which must outlive the runtime
    runtime = library.Runtime(logger)
    engine = runtime.deserialize_cuda_engine(data)
    context = engine.create_execution_context() if engine is not None else None
    return {**found, "loads": context is not None, "why": " ".join(said)[:300]}
