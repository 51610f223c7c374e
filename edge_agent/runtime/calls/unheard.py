"""For who may be told of something, and need not be."""


def unheard(*_told: object) -> None:
    """Nobody listens."""
