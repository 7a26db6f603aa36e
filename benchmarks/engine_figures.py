"""What benchmarks/engines.py measured, in one run or in several: kept, and printed with ratios."""

import statistics
from pathlib import Path

import msgspec

# By measurement and server: one value per round.
ByServer = dict[str, list[float]]


class Figures(msgspec.Struct, kw_only=True):
    """All that was measured of some servers on one machine.

    Attributes:
        rounds: How many rounds there were.
        speeds: One value per round.
        quality: One value.
    """

    rounds: int = 0
    speeds: dict[str, ByServer] = msgspec.field(default_factory=dict[str, ByServer])
    quality: dict[str, ByServer] = msgspec.field(default_factory=dict[str, ByServer])

    def note(self, what: str, server: str, value: float) -> None:
        """Add the speed of one round."""
        self.speeds.setdefault(what, {}).setdefault(server, []).append(value)


def read(path: Path | None) -> Figures:
    """What earlier runs kept; nothing where there is no file."""
    if path is None or not path.exists():
        return Figures()
    return msgspec.json.decode(path.read_bytes(), type=Figures)


def keep(path: Path | None, figures: Figures) -> None:
    """Keep it for later runs."""
    if path is not None:
        path.write_bytes(msgspec.json.encode(figures))


def print_table(by_what: dict[str, ByServer]) -> None:
    """Print medians with the least and the most, and the ratio of the first server to the last.

    The ratio is the median of the rounds' own, with the least and the most: what slows a round
    slows both servers of it.
    """
    names = list(next(iter(by_what.values()), {}))
    if not names:
        return
    print(f"| | {' | '.join(names)} | {names[0]} / {names[-1]} |")
    print("|---" * (len(names) + 2) + "|")
    for what, by_name in by_what.items():
        first, last = by_name[names[0]], by_name[names[-1]]
        ratios = [a / b for a, b in zip(first, last, strict=True)]
        cells = [_cell(values) for values in [*(by_name[name] for name in names), ratios]]
        print(f"| {what} | {' | '.join(cells)} |")


def _cell(values: list[float]) -> str:
    return f"{statistics.median(values):.4g} ({min(values):.4g}-{max(values):.4g})"
