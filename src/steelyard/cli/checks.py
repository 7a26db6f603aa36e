"""What `steelyard doctor` finds out of one thing: fine, a warning or a failure, with the cure."""

from typing import Literal

import msgspec

State = Literal["ok", "warning", "failure"]


class Check(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the doctor.

    Attributes:
        area: `engine`, `processor`, `sandbox`, `store`, `port`, `clock` or `pool`.
        name: What was looked at.
        state: How it is.
        told: What was found.
        cure: What to do about it; empty where it is fine.
    """

    area: str
    name: str
    state: State
    told: str
    cure: str = ""


def good(area: str, name: str, told: str) -> Check:
    """Nothing to do."""
    return Check(area=area, name=name, state="ok", told=told)


def warned(area: str, name: str, told: str, cure: str) -> Check:
    """It works without, but not as well."""
    return Check(area=area, name=name, state="warning", told=told, cure=cure)


def failed(area: str, name: str, told: str, cure: str) -> Check:
    """It does not work."""
    return Check(area=area, name=name, state="failure", told=told, cure=cure)
