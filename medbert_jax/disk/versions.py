"""The version that a stored form says of itself: older ones are read as they are, newer ones are not."""


def refuse_newer(what: str, found: object, known: int, *, error: type[Exception] = ValueError) -> None:
    """Raise `error` where a stored form, `what` with its place, says a later version than `known`, or what is none.

    `found` is a whole number from 0; of forms that hold nothing but text, what `number_of` made of it.
    """
    if type(found) is not int or found < 0:
        raise error(
            f"a stored form must say its version, a whole number from 0, or none: got {what} with {_told(found)}; put"
            " the file back from a copy"
        )
    if found > known:
        raise error(
            f"what is stored must be of version {known} or older, which this medbert_jax reads: got {what} of version"
            f" {found}; read it with the medbert_jax that wrote it, or a newer one"
        )


def number_of(text: str) -> int | str:
    """The number that a text is; the text where it is none."""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else text


def _told(found: object) -> str:
    if isinstance(found, int | float) and not isinstance(found, bool):
        return str(found)
    return "text" if isinstance(found, str) else type(found).__name__
