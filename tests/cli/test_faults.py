"""An error of the library names its arguments, and the command line its options."""

import pytest

from difftool.cli.faults import in_options


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("raise `max_work=2560`", "raise --max-work 2560"),
        ("give that sha256 as `trust`", "give that sha256 as --trust"),
        ("export it again: `features=norms`", "export it again: --with norms"),
        ("raise the limit: `limits`", "raise the limit: --max-memory"),
        ("lower `n`", "lower -n"),
        ("a file called a`b is left alone", "a file called a`b is left alone"),
    ],
)
def test_arguments_become_options(text: str, said: str) -> None:
    assert in_options(text) == said
