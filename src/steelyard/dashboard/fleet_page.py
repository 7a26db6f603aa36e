"""The page of the live fleet."""

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from steelyard.dashboard.fleet_rows import fleet_now
from steelyard.dashboard.rendering import Renderer
from steelyard.dashboard.sources import Totals
from steelyard.runtime.dispatcher import Dispatcher


class FleetPages:
    """Shows pools as they are now.

    Args:
        renderer: Makes pages.
        dispatcher: The live fleet.
        totals: What each pool's attempts came to.
    """

    def __init__(self, renderer: Renderer, dispatcher: Dispatcher, totals: Totals) -> None:
        self._renderer = renderer
        self._dispatcher = dispatcher
        self._totals = totals

    def routes(self) -> list[Route]:
        """The page, and the part of it that changes."""
        return [Route("/", self._whole), Route("/fleet/part", self._part)]

    async def _whole(self, _: Request) -> Response:
        return self._renderer.page("fleet", self._values())

    async def _part(self, _: Request) -> Response:
        return self._renderer.page("fleet_part", self._values())

    def _values(self) -> dict[str, object]:
        now_s = self._dispatcher.now_s()
        fleet = fleet_now(self._dispatcher.state, now_s, self._totals)
        return {"title": "Fleet", "active": "fleet", "fleet": fleet, "now_s": now_s}
