"""The base of all entries of `bundle.json`."""

from pydantic import BaseModel, ConfigDict


class Entry(BaseModel):
    """An entry as it is written: nothing is converted, and nothing unknown is taken."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
