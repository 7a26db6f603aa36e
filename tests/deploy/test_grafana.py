import json
import re
from typing import Any

from grafana_dashboard import PATH, board
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from steelyard.gateway.metrics import Metrics

_METRIC = re.compile(r"\bsteelyard_\w+")


def _asked() -> list[str]:
    panels: list[dict[str, Any]] = json.loads(PATH.read_text(encoding="utf-8"))["panels"]
    return [target["expr"] for panel in panels for target in panel.get("targets", ())]


def _shown() -> dict[str, str]:
    lines = Metrics().render().decode().splitlines()
    return dict(line.split()[2:4] for line in lines if line.startswith("# TYPE"))


def test_the_file_is_what_the_script_writes() -> None:
    assert PATH.read_text(encoding="utf-8") == board()


def test_grafana_s_own_types_read_it_and_lose_nothing() -> None:
    told = json.loads(PATH.read_text(encoding="utf-8"))
    read = Dashboard.from_json(told)
    again = json.loads(JSONEncoder().encode(read))
    assert again == told
    ids = [panel["title"] for panel in told["panels"]]
    assert len(ids) > 15


def test_every_metric_that_it_asks_for_is_in_metrics() -> None:
    shown = _shown()
    for expr in _asked():
        for used in _METRIC.findall(expr):
            base = re.sub(r"_(bucket|sum|count)$", "", used)
            assert shown.get(used) or shown.get(base) == "histogram", used


def test_every_metric_is_shown_somewhere() -> None:
    asked = " ".join(_asked())
    assert [name for name in _shown() if name not in asked] == []


def test_panels_do_not_lie_on_one_another() -> None:
    panels = json.loads(PATH.read_text(encoding="utf-8"))["panels"]
    seen: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & seen, panel["title"]
        assert at["x"] + at["w"] <= 24
        seen |= cells
