"""Models that others have trained: their files in, a checkpoint of ours out.

Files are recognized by their structure, never by their names, and read without running anything in
them. One file a format; see `difftool.importers.format` for what one is.
"""

from difftool.lazy import TYPE_CHECKING, lazily

if TYPE_CHECKING:
    from difftool.importers.format import Format, Imported
    from difftool.importers.found import FORMATS, Found, find, is_foreign
    from difftool.importers.hub import cached, located
    from difftool.importers.importing import (
        ImportedModel,
        as_checkpoint,
        describe,
        import_checkpoint,
    )
    from difftool.importers.settings import Chosen, Setting, Settings, SettingsMissing
    from difftool.importers.source import Source

__all__ = [
    "FORMATS",
    "Chosen",
    "Format",
    "Found",
    "Imported",
    "ImportedModel",
    "Setting",
    "Settings",
    "SettingsMissing",
    "Source",
    "as_checkpoint",
    "cached",
    "describe",
    "find",
    "import_checkpoint",
    "is_foreign",
    "located",
]

_HOMES = {
    "Source": "difftool.importers.source",
    "Settings": "difftool.importers.settings",
    "Setting": "difftool.importers.settings",
    "Chosen": "difftool.importers.settings",
    "FORMATS": "difftool.importers.found",
    "Format": "difftool.importers.format",
    "Found": "difftool.importers.found",
    "Imported": "difftool.importers.format",
    "ImportedModel": "difftool.importers.importing",
    "SettingsMissing": "difftool.importers.settings",
    "as_checkpoint": "difftool.importers.importing",
    "cached": "difftool.importers.hub",
    "describe": "difftool.importers.importing",
    "find": "difftool.importers.found",
    "import_checkpoint": "difftool.importers.importing",
    "is_foreign": "difftool.importers.found",
    "located": "difftool.importers.hub",
}

__getattr__ = lazily(__name__, _HOMES)
