"""The version that a stored form says of itself: older ones are read as they are, newer ones are not."""


def refuse_newer(what: str, found: object, known: int, *, error: type[Exception] = ValueError) -> None:
    """Raise `error` where a stored form, `what` with its place, says a later version than `known`, or what is none.

    `found` is a number, or its text.
    """
    if not str(found).isdecimal() or int(str(found)) > known:
        raise error(
            f"what is stored must be of version {known} or older, which this medbert_jax reads: got {what} of version"
            f" {found}; read it with the medbert_jax that wrote it, or a newer one"
        )
