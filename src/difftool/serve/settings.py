"""What one request may ask of a server."""

from dataclasses import dataclass, field, fields

from difftool.errors import UsageError


@dataclass(frozen=True)
class ServeSettings:
    """The limits of a server, and who may use it.

    - `max_n`, `max_steps`, `max_work`: of a request: samples, rows of its program, and samples
      times rows times the numbers of a sample
    - `max_body`: bytes of a request's body, also of what is unpacked from it
    - `patience`: seconds that a client may take to send a request's head, and then its body
    - `deadline`: seconds that a request may take, its wait included; it may ask for fewer
    - `streams`: how many streams of events may be open
    - `hang`: seconds after which a step that has not ended makes the server not ready
    - `keys`: who sends one of them may use the server; without keys everybody may
    """

    max_n: int = 64
    max_steps: int = 2000
    max_work: int = 10**9
    max_body: int = 1 << 20
    patience: float = 30.0
    deadline: float = 600.0
    streams: int = 64
    hang: float = 60.0
    keys: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        for each in fields(self):
            if each.name != "keys" and not getattr(self, each.name) > 0:
                text = f"a server's {each.name} is {getattr(self, each.name)}"
                raise UsageError(text, "give more than 0")
