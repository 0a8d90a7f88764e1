"""Write a static page that samples a bundle in the browser, with `sampler.onnx` and programs."""

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from difftool.bundle import SAMPLER, Bundle
from difftool.compile.sampler_onnx.graph import portable_sampler
from difftool.diffusion.calls import SamplerCall
from difftool.diffusion.features import Feature
from difftool.diffusion.packed import pack_program
from difftool.diffusion.program import Program
from difftool.diffusion.samplers import compile_program
from difftool.errors import ArtefactError, MissingDependencyError, UsageError
from difftool.files import atomic_directory, destination, read_json, write_atomic, write_json
from difftool.runtime.images import is_image
from difftool.runtime.shipped import open_bundle

# The files that a page needs from the folder dist of the npm package onnxruntime-web.
RUNTIME: Final = (
    "ort.wasm.min.mjs",
    "ort-wasm-simd-threaded.mjs",
    "ort-wasm-simd-threaded.wasm",
)
MODEL: Final = "model/model.json"

_PAGE: Final = Path(__file__).parent / "page"
# The programs that the page offers besides the default one, if the model has enough levels.
_OFFERED: Final = {
    "dpmpp_2m": (10, 20, 50),
    "unipc": (10, 20),
    "ddim": (10, 20, 50, 100),
    "euler_ancestral": (10, 20, 50, 100),
}
# A distilled model's D is no posterior mean any more, so solvers of many steps do not suit it.
_OFFERED_DISTILLED: Final = {"consistency": (1, 2, 4, 8)}


@dataclass(frozen=True)
class Site:
    """A page that samples in the browser: its folder, files, bytes, first program and precision."""

    path: Path
    files: int
    size: int
    program: Program
    precision: str


def web(
    bundle: Bundle | Path | str,
    out: Path | str,
    *,
    runtime: Path | str,
    program: Program | None = None,
    precision: str = "fp32",
    title: str | None = None,
    force: bool = False,
) -> Site:
    """Write a static page that samples a bundle in the browser.

    Args:
        bundle: a bundle, its folder, or the name of a shipped model.
        out: the folder to make; it appears complete or not at all.
        runtime: the folder that holds onnxruntime-web, as npm installs it; its files are copied.
        program: the program that the page offers first; by default the bundle's own.
        precision: precision of the step graph; the bundle must have it.
        title: title of the page; by default the last part of the bundle's name.
        force: replace `out`, which must itself be such a page and hold nothing else.

    Raises:
        UsageError: `out` exists, or samples are neither images nor 2-D points.
        MissingDependencyError: `runtime` does not hold onnxruntime-web.
        ArtefactError: the bundle has no step graph in that precision.

    Examples:
        >>> page = difftool.compile.web("digits.bundle", "site", runtime="node_modules")
        >>> (page.path / "index.html").is_file()
        True
    """
    opened = open_bundle(bundle)
    program = program or opened.default_program()
    title = title or (opened.path if isinstance(bundle, Bundle) else Path(bundle)).name
    replace = _listed_files if force else None
    site = destination(out, replace=replace)
    if not is_image(opened.spec) and opened.spec.shape != (2,):
        raise UsageError(
            f"a page cannot show samples of shape {opened.spec.shape}",
            "choose a model of images, or of points in the plane",
        )
    found = find_runtime(Path(runtime))
    sampler = portable_sampler(opened, program, precision)
    with atomic_directory(site, replace=replace) as folder:
        shutil.copytree(_PAGE, folder, dirs_exist_ok=True)
        (folder / "ort").mkdir()
        for name in RUNTIME:
            shutil.copyfile(found / name, folder / "ort" / name)
        write_atomic(folder / "model" / SAMPLER, sampler)
        record = _record(opened, program, folder / "model", title)
        names = [file.relative_to(folder).as_posix() for file in _files(folder)]
        write_json(folder / MODEL, {**record, "files": sorted([*names, MODEL])})
    sizes = [file.stat().st_size for file in _files(site)]
    return Site(Path(out), len(sizes), sum(sizes), program, precision)


def find_runtime(folder: Path) -> Path:
    """Find onnxruntime-web's files in or below a folder, such as node_modules or its parent."""
    inside = ("", "dist", "onnxruntime-web/dist", "node_modules/onnxruntime-web/dist")
    for place in inside:
        if all((folder / place / name).is_file() for name in RUNTIME):
            return folder / place
    raise MissingDependencyError(
        f"{folder} holds no onnxruntime-web",
        "run: npm install onnxruntime-web; or give its folder as `runtime`",
    )


def _record(bundle: Bundle, program: Program, folder: Path, title: str) -> dict[str, Any]:
    """Return the page's record of the model; write the programs that it names into `folder`."""
    programs = []
    for offered in [program, *_offered(bundle, program)]:
        file = f"{offered.call.name}-{len(offered)}.bin"
        write_atomic(folder / file, pack_program(offered))
        programs.append({"sampler": offered.call.name, "steps": len(offered), "file": file})
    spec = bundle.spec
    return {
        "title": title,
        "shape": list(spec.shape),
        "range": spec.data_range,
        "image": is_image(spec),
        "classes": spec.classes,
        "null_label": spec.null_label,
        "guidance": Feature.GUIDANCE in bundle.features,
        "parameters": bundle.manifest.network.parameters,
        "programs": programs,
    }


def _files(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file()]


def _offered(bundle: Bundle, program: Program) -> Iterator[Program]:
    origin = bundle.manifest.distilled
    offered: Mapping[str, tuple[int, ...]] = _OFFERED
    if origin is not None:  # a student of "progressive" is for its own steps alone
        offered = {} if origin.method == "progressive" else _OFFERED_DISTILLED
    for sampler, all_steps in offered.items():
        for steps in all_steps:
            if (sampler, steps) == (program.call.name, len(program)):
                continue
            try:
                yield compile_program(bundle.spec, SamplerCall(sampler, {"steps": steps}))
            except UsageError:  # the model has fewer levels
                continue


def _listed_files(folder: Path) -> set[str]:
    """Return the relative paths of a page's files; UsageError if the folder is no such page."""
    if not (folder / MODEL).is_file():
        raise UsageError(
            f"{folder} is not such a page, so it is not replaced", "choose another name"
        )
    try:
        return {*map(str, read_json(folder / MODEL)["files"])}
    except (ArtefactError, KeyError, TypeError) as error:
        raise UsageError(
            f"{folder / MODEL} does not list the files of the page, so it is not replaced",
            "choose another name, or move it elsewhere",
        ) from error
