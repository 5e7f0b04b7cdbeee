"""How commands refuse: one line on stderr, below the usage where the words make no sense."""


def line_of(error: str) -> str:
    """Return the one line of a refusal, after asserting that nothing but the usage stands above it."""
    *usage, line = error.splitlines()
    assert line.startswith("d2net: error: "), error
    assert not usage or (usage[0].startswith("usage: d2net ") and all(more.startswith(" ") for more in usage[1:])), (
        error
    )
    return line
