"""K3: where the power goes in the middle of a save, the checkpoint before or after it is left."""

import itertools
from pathlib import Path

import pytest

from tests.reliability import saves
from tests.reliability.criteria import Cases
from tests.reliability.training_defects import skip_the_folders_fsync

DRAWS, ALL_DRAWS = 2, 40  # losses at random after each operation, in the short tier and in full


@pytest.mark.criterion("K3")
def test_power_lost_at_any_file_operation(cases: Cases, nightly: bool, tmp_path: Path) -> None:
    draws = ALL_DRAWS if nightly else DRAWS
    found = (
        saves.power_losses(method, kind, tmp_path / f"{method}-{kind}", draws)
        for method, kind in itertools.product(saves.SMALL, saves.KINDS)
    )
    cases.run(saves.nothing_is_lost, itertools.chain.from_iterable(found))


@pytest.mark.seeded("K3")
@pytest.mark.parametrize("kind", saves.KINDS)
def test_a_folder_that_is_not_synced_is_seen(kind: str, tmp_path: Path) -> None:
    found = saves.power_losses("ncsn", kind, tmp_path / "disk", DRAWS, skip_the_folders_fsync)
    with pytest.raises(AssertionError, match="none loads"):
        Cases(lambda *_: None).run(saves.nothing_is_lost, found)
