"""What programs of a model have reached, and the choice of one by the quality that is wanted."""

from typing import Annotated, Any, Final, Literal

from pydantic import Field

from difftool.bundle.entry import Entry
from difftool.diffusion.calls import SamplerCall

_Lax = Field(strict=False)  # JSON has lists for tuples

# The greatest distance of each quality, as a multiple of the least that was measured.
QUALITIES: Final = {"draft": 2.0, "good": 1.2, "best": 1.0}


class MeasuredProgram(Entry):
    """A program, as the call that compiles it, and what it reached.

    - `evaluations`: of the network, for each sample; the cost on every machine
    - `distance`: from the data; less is better
    """

    sampler: str
    arguments: dict[str, Any]
    evaluations: int = Field(ge=1)
    distance: float

    @property
    def call(self) -> SamplerCall:
        """Return it as a SamplerCall."""
        return SamplerCall(self.sampler, self.arguments)


class Measured(Entry):
    """What `difftool measure` has found, with the same data and judge for each program.

    - `figure`: the distance, "frechet_distance" of images or "sliced_wasserstein" of points
    - `extractor_sha256`: the digest of the extractor of images' features; None for points
    - `n`, `seed`: of the samples of each program
    - `programs`: at least one
    """

    figure: Literal["frechet_distance", "sliced_wasserstein"]
    extractor_sha256: str | None
    n: int = Field(ge=1)
    seed: int = Field(ge=0)
    programs: Annotated[tuple[MeasuredProgram, ...], _Lax] = Field(min_length=1)

    @property
    def front(self) -> tuple[MeasuredProgram, ...]:
        """Return the programs that no other one beats in both cost and distance, cheapest first."""
        found: list[MeasuredProgram] = []
        for each in sorted(self.programs, key=lambda each: (each.evaluations, each.distance)):
            if not found or each.distance < found[-1].distance:
                found.append(each)
        return tuple(found)

    def pick(self, quality: str) -> MeasuredProgram:
        """Return the cheapest program whose distance is near enough to the least one.

        Near is as in QUALITIES; KeyError if `quality` is not one of them.
        """
        front = self.front
        most = QUALITIES[quality] * front[-1].distance
        return next(each for each in front if each.distance <= most)
