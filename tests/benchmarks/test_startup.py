"""The size of what is installed."""

from startup import installed_megabytes


def test_packages_are_counted_with_what_they_require() -> None:
    alone, whole = installed_megabytes(["numpy"]), installed_megabytes(["difftool"])
    assert 5 < alone < whole  # difftool requires numpy
    assert installed_megabytes(["difftool", "no-such-package"]) is None
