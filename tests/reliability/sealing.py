"""A manifest's text with the digest that it should have, whatever it says."""

import hashlib
import re

_DIGEST = re.compile(r'(?<="digest": ")[0-9a-f]{64}(?=")')
_ZEROS = "0" * 64


def seal(text: str) -> bytes:
    """The text with its own digest made anew; as it is where it has none."""
    found = _DIGEST.findall(text)
    blank = text.replace(found[-1], _ZEROS) if found else text
    digest = hashlib.sha256(blank.encode()).hexdigest()
    return _DIGEST.sub(digest, text).encode()
