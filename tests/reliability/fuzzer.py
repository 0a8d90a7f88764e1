"""Fuzz one target, guided by what of difftool its inputs reach; `python fuzzer.py TARGET ...`.

The other arguments are libFuzzer's. It ends with 0 if nothing but a DifftoolError came out.
With DEFECT in the environment, the code in it is run first, to seed one.
"""

import logging
import os
import random
import re
import sys
import warnings
from pathlib import Path

import atheris

# A flipped byte mostly leaves text that is no JSON or TOML. So half of the mutations put one value
# in the place of another.
_VALUE = re.compile(rb'"[^"\n]*"|-?\d[\d.eE+-]*|true|false|null')
_WORDS = (
    *(b"0", b"1", b"-1", b"0.5", b"1e308", b"1e-320", b"-0.0", b"100000", b"1000000000000"),
    *(b"9" * 30, b"9" * 400, b"true", b"false", b"null", b'""', b'"x"', b"[]", b"{}", b"[1]"),
)


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Change bytes a little, to at most so many."""
    rng = random.Random(seed)
    places = list(_VALUE.finditer(data))
    if not places or rng.random() < 0.5:
        mutated: bytes = atheris.Mutate(data, most)
        return mutated
    place = rng.choice(places)
    word = rng.choice([*_WORDS, rng.choice(places)[0]])
    return (data[: place.start()] + word + data[place.end() :])[:most]


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[2]))
    if sys.argv[1] == "recipe":
        import torch._meta_registrations  # noqa: F401  (which takes long, and the first input's time)
    with atheris.instrument_imports(include=["difftool"]):
        import difftool.bundle
        import difftool.preflight

        if sys.argv[1] in ("config", "checkpoint"):
            import difftool.checkpoint
            import difftool.train.config
        if sys.argv[1] in ("recipe", "image"):
            import difftool.train.rehearsal
        if sys.argv[1] == "yaml":
            import difftool.importers  # noqa: F401
    from difftool.errors import DifftoolError
    from tests.reliability.fuzz_targets import TARGETS

    target = TARGETS[sys.argv.pop(1)]
    warnings.simplefilter("ignore")
    logging.disable()
    exec(os.environ.get("DEFECT", ""), {})

    def fuzz(data: bytes) -> None:
        try:
            target(data)
        except DifftoolError as error:
            str(error).encode()

    atheris.Setup(sys.argv, fuzz, custom_mutator=mutate)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
