"""Which pages are written from the code, and where do they stand?"""

from collections.abc import Callable, Mapping
from types import MappingProxyType

from docs_site import (
    configuration,
    errors_page,
    events_page,
    frames_page,
    http_page,
    metrics_page,
    python_page,
)

# Path below docs/ -> what writes it.
GENERATED: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "reference/configuration.md": configuration.page,
        "reference/http.md": http_page.page,
        "reference/headers.md": http_page.headers_page,
        "reference/metrics.md": metrics_page.page,
        "reference/errors.md": errors_page.page,
        "reference/events.md": events_page.page,
        "reference/python.md": python_page.page,
        "reference/frames.md": frames_page.page,
    }
)
