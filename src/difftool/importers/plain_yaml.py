"""Read YAML as plain data: nothing in it runs, and short files stay small in memory."""

import re
from pathlib import Path
from typing import Any, Final

from difftool.errors import ArtefactError, first_line
from difftool.files import read_limited

MOST_NODES: Final = 10_000  # values and keys, counted at every reference
# So many characters count as one more value, since reading a number may take their square.
_LONG: Final = 10
_NAMESPACE: Final = "tag:yaml.org,2002:python/object:argparse.Namespace"


def read_yaml(path: Path) -> Any:
    """Read plain data from YAML. A dumped argparse.Namespace becomes a dictionary.

    ArtefactError for every other Python tag, for anything but YAML, and for more than MOST_NODES
    values, with a value counted at every reference to it.
    """
    import yaml

    class Plain(yaml.SafeLoader):
        """A loader that counts the nodes before it makes values from them."""

        def __init__(self, data: bytes) -> None:
            super().__init__(data)
            self.count = 0
            self.sizes: dict[str, int] = {}  # nodes under each anchor

        def compose_node(self, parent: Any, index: Any) -> Any:
            event, before = self.peek_event(), self.count
            name = event.anchor
            if self.check_event(yaml.AliasEvent):
                # An anchor without a size is not complete yet, so the value contains itself.
                self.count += self.sizes.get(name, MOST_NODES) if name in self.anchors else 0
            else:
                self.count += 1 + len(getattr(event, "value", "")) // _LONG
            if self.count > MOST_NODES:
                raise ArtefactError(
                    f"{path} has more than {MOST_NODES} values, counting what it repeats",
                    "check that it is the right file",
                )
            node = super().compose_node(parent, index)
            self.sizes.setdefault(name, self.count - before)
            return node

    Plain.add_constructor(
        _NAMESPACE, lambda loader, node: loader.construct_mapping(node, deep=True)
    )
    try:
        return yaml.load(read_limited(path), Plain)
    except (ArtefactError, MemoryError):
        raise
    except yaml.constructor.ConstructorError as error:
        tag = re.search(r"tag '(?:tag:yaml.org,2002:)?([^']*)'", str(error))
        what = f"the tag {tag[1]}" if tag else str(error.problem)
        raise ArtefactError(
            f"{path} asks for {what}, which is more than plain data",
            "do not use it, unless you know its author; then write the values out",
        ) from error
    except Exception as error:  # a constructor may raise anything for a value that its tag belies
        raise ArtefactError(f"cannot read {path}: {first_line(error)}", "copy it again") from error
