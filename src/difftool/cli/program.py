"""difftool program: compile a sampler and print its table."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from difftool.cli import options
from difftool.cli.console import report, warn
from difftool.outputs import require_free

EXAMPLES = """\b
Examples:
  difftool program --sampler ddim --steps 20
  difftool program ncsn-mnist --arg step_size=2e-5 --out program.json
  difftool program --sampler dpmpp_2m --steps 20 --out program.bin
"""

PACKED = ".bin"


def program(
    model: options.Model = options.DEFAULT_MODEL,
    sampler: options.Sampler = None,
    steps: options.Steps = None,
    eta: options.Eta = None,
    assignments: options.Assignments = None,
    out: Annotated[
        Path | None,
        options.out(
            "FILE",
            "Save the program to this file: the exact table as JSON, or, if the name ends in .bin, "
            "the arrays that sampler.onnx takes.",
        ),
    ] = None,
    force: options.Force = False,
    json: options.Json = False,
) -> None:
    """Print and check the table that a sampler compiles to.

    The check runs the table with a perfect denoiser: after every row the scales of signal and noise
    must be those of the schedule. Exit code 1 if they are not. Samplers that add more or less noise
    than that by design, such as Langevin dynamics, are held to the signal alone, which is said.
    """
    from difftool.diffusion import caveats, pack_program, validate
    from difftool.files import write_atomic

    if out is not None:
        require_free(out, force=force)
    bundle, compiled = options.open_program(model, sampler, steps, eta, assignments)
    proof = validate(compiled)
    if out is not None:
        if out.suffix.lower() == PACKED:
            write_atomic(out, pack_program(compiled))
        else:
            compiled.save(out)
    warnings = caveats(compiled, bundle.spec, bundle.default_program())
    if json:
        record = {**compiled.to_dict(), "proof": asdict(proof), "warnings": warnings}
        report(record, as_json=True)
        return
    print(compiled)
    print(proof)
    warn(warnings)
