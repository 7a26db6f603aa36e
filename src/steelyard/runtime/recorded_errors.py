"""Errors that were recorded, as errors again."""

from steelyard.errors import PoolOverloadedError, SteelyardError


def recorded_error(code: str, message: str) -> SteelyardError:
    """Make the error of a stable code.

    Args:
        code: As recorded.
        message: As recorded.

    Returns:
        An error of the class with that code; of the base class for a code of another version.
    """
    found = _classes(SteelyardError).get(code, SteelyardError)
    if issubclass(found, PoolOverloadedError):
        return found(message, retry_after_s=0.0)
    return found(message)


def _classes(base: type[SteelyardError]) -> dict[str, type[SteelyardError]]:
    found = {base.code: base} if base.__module__ == SteelyardError.__module__ else {}
    for child in base.__subclasses__():
        found = {**_classes(child), **found}
    return found
