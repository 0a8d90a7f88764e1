"""A configuration as TOML, in which every key has a comment: what it is, and its default."""

import textwrap
from collections.abc import Iterator
from typing import Any, Final

import tomlkit
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from difftool.train.sections import Section

_WIDTH: Final = 88


def to_toml(config: Section) -> str:
    """Write TOML from which `read_toml` reads the same configuration.

    A key that is not set stands in a comment, because TOML has no word for none.
    """
    return "\n".join(_lines(config, ())) + "\n"


def default_of(field: FieldInfo) -> str:
    """Return a key's default as TOML; "" if it must be given, "none" if it is not set."""
    if field.is_required() or isinstance(field.default, BaseModel):
        return ""
    return "none" if field.default is None else _value(field.default)


def _lines(section: Section, path: tuple[str, ...]) -> Iterator[str]:
    """Yield the keys of a section, and then the tables in it, as TOML must have them."""
    fields = type(section).model_fields
    for name, field in fields.items():
        value = getattr(section, name)
        if isinstance(value, Section | dict):
            continue
        default = default_of(field)
        yield from _comment(f"{field.description} {f'Default: {default}.' if default else ''}")
        yield f"# {name} =" if value is None else f"{name} = {_value(value)}"
    for name, field in fields.items():
        value, inner = getattr(section, name), (*path, name)
        if isinstance(value, Section):
            yield from ("", *_comment((type(value).__doc__ or "").partition("\n\n")[0]))
            yield from (f"[{'.'.join(inner)}]", *_lines(value, inner))
        elif isinstance(value, dict):
            yield from ("", *_comment(field.description or ""))
            yield from (f"[{'.'.join(inner)}]", *_table(value, inner))


def _table(value: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield a table of arguments, whose tables stand in one line each."""
    for key, item in value.items():
        yield f"{tomlkit.key(key).as_string()} = {_value(item)}"


def _value(value: Any) -> str:
    """Return a value as TOML in one line."""
    if isinstance(value, dict):
        inline = tomlkit.inline_table()
        inline.update(value)
        return inline.as_string()
    if isinstance(value, list | tuple):
        array = tomlkit.array()  # `item` would make tables of a list of dictionaries
        array.extend(value)
        return array.as_string()
    return tomlkit.item(value).as_string()


def _comment(text: str) -> Iterator[str]:
    for line in textwrap.wrap(" ".join(text.split()), _WIDTH, break_on_hyphens=False):
        yield f"# {line}"
