"""Templates to HTML. Whatever a user named is escaped; figures are rounded by `report.format`."""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, Response

from steelyard.report.alike import seconds_alike, usd_alike
from steelyard.report.format import (
    NONE,
    count,
    name,
    percent,
    ratio,
    seconds,
    short_offering,
    significant,
    usd,
)


def environment() -> Environment:
    """The templates with the formats that they use."""
    made = Environment(
        autoescape=True,
        loader=PackageLoader("steelyard.dashboard"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    several: dict[str, Callable[..., Any]] = {"alike": alike}
    made.filters.update(several)
    made.filters.update(
        usd=usd,
        seconds=seconds,
        percent=percent,
        count=count,
        ratio=ratio,
        significant=significant,
        name=name,
        offering=short_offering,
        instant=instant,
        day_time=day_time,
        words=words,
    )
    return made


class Renderer:
    """Makes pages."""

    def __init__(self) -> None:
        self._environment = environment()

    def page(self, template: str, values: dict[str, Any], status: int = 200) -> Response:
        """A page, or a part of one.

        Args:
            template: Its file's name without the suffix.
            values: What it shows.
            status: HTTP status.
        """
        text = self._environment.get_template(f"{template}.html.j2").render(values)
        return HTMLResponse(text, status, {"cache-control": "no-store"})


def instant(t_s: float) -> str:
    """When was that? In UTC, to the second, as `<time datetime>` takes it.

    >>> instant(0.0)
    '1970-01-01T00:00:00Z'
    """
    try:
        moment = datetime.fromtimestamp(t_s, UTC)
    except (OverflowError, ValueError, OSError):
        return "unknown"
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def day_time(t_s: float) -> str:
    """When was that, for people? In UTC.

    >>> day_time(0.0)
    '1970-01-01 00:00:00'
    """
    return instant(t_s).replace("T", " ").removesuffix("Z")


def words(code: str) -> str:
    """A code as words.

    >>> words("over_budget")
    'over budget'
    """
    return code.replace("_", " ")


def alike(values: Iterable[float | None], unit: str) -> tuple[str, ...]:
    """Figures that stand below or beside each other, for people.

    Args:
        values: In `unit`; None where there is none.
        unit: `s`, `usd` or `tokens`.

    >>> alike([0.5, 90.0], "s"), alike([12.0, None], "tokens")
    (('0.500 s', '90.0 s'), ('12', '-'))
    """
    known = tuple(values)
    if unit == "s":
        return seconds_alike(known)
    if unit == "usd":
        return usd_alike(known)
    return tuple(NONE if one is None else count(round(one)) for one in known)
