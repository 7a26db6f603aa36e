"""Service levels: what an answer must keep to count."""

import msgspec


class StepSlo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Limits of some steps in place of the general ones; an empty name stands for all.

    Attributes:
        agent: Of this agent's steps only.
        step: Of steps of this name only.
        model: Of calls of this model only.
        ttft_s: Longest time to the first token, at the 95th percentile; None: as for others.
        itl_s: Longest gap between tokens, at the 95th percentile; None: as for others.
        tpot_s: Longest mean time per output token after the first; None: as for others.
        latency_s: Longest mean time from start to end, of tools too; None: as for others.
    """

    agent: str = ""
    step: str = ""
    model: str = ""
    ttft_s: float | None = None
    itl_s: float | None = None
    tpot_s: float | None = None
    latency_s: float | None = None

    def covers(self, agent: str, step: str, model: str) -> bool:
        """Do these limits hold for this step?"""
        pairs = ((self.agent, agent), (self.step, step), (self.model, model))
        return all(wanted in ("", given) for wanted, given in pairs)

    def label(self) -> str:
        """What it covers, in words."""
        parts = {"agent": self.agent, "step": self.step, "model": self.model}
        return ", ".join(f"{key} {name!r}" for key, name in parts.items() if name) or "all steps"


class Slo(msgspec.Struct, frozen=True, kw_only=True):
    """Limits per step, for planning capacity.

    Attributes:
        ttft_s: Longest time to the first token, at the 95th percentile.
        itl_s: Longest gap between tokens, at the 95th percentile.
        tpot_s: Longest mean time per output token after the first; None for no limit of its own.
        latency_s: Longest mean time from start to end of a step, of tools too; None for none.
        steps: Other limits for some of the steps.
    """

    ttft_s: float = 1.0
    itl_s: float = 0.1
    tpot_s: float | None = None
    latency_s: float | None = None
    steps: tuple[StepSlo, ...] = ()

    @property
    def gap_s(self) -> float:
        """The tighter of `itl_s` and `tpot_s`: on a loaded replica all gaps are about equal."""
        return self.itl_s if self.tpot_s is None else min(self.itl_s, self.tpot_s)

    def limits(self, agent: str, step: str, model: str) -> "Slo":
        """Which limits hold for this step?

        Of the entries of `steps` that cover it, the one that names most counts, then the later
        one; a limit that it leaves out is taken from the next, at last from the general ones.

        >>> slo = Slo(steps=(StepSlo(agent="chat", ttft_s=0.3), StepSlo(ttft_s=9.0)))
        >>> slo.limits("chat", "answer", "m").ttft_s, slo.limits("batch", "sum", "m").ttft_s
        (0.3, 9.0)
        """
        found = msgspec.structs.replace(self, steps=())
        covering = [one for one in self.steps if one.covers(agent, step, model)]
        # Stable: of equally special entries the later one is applied last.
        for one in sorted(covering, key=lambda s: sum(map(bool, (s.agent, s.step, s.model)))):
            found = Slo(
                ttft_s=found.ttft_s if one.ttft_s is None else one.ttft_s,
                itl_s=found.itl_s if one.itl_s is None else one.itl_s,
                tpot_s=found.tpot_s if one.tpot_s is None else one.tpot_s,
                latency_s=found.latency_s if one.latency_s is None else one.latency_s,
            )
        return found
