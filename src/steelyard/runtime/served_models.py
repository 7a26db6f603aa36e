"""Which models does the fleet serve, and how long may a prompt be?"""

from steelyard.domain.pool import PoolSpec


class ServedModels:
    """The answer, kept until the fleet changes: every request asks for it."""

    def __init__(self) -> None:
        self._pools: tuple[PoolSpec, ...] | None = None
        self._longest: dict[str, int] = {}

    def context_tokens(self, pools: tuple[PoolSpec, ...]) -> dict[str, int]:
        """How long may prompt and answer be in the roomiest pool of each model?

        Args:
            pools: The fleet; the same tuple as before when nothing has changed.

        Returns:
            Tokens by model, in the order of the names.
        """
        if pools is not self._pools:
            found: dict[str, int] = {}
            for spec in pools:
                for model, curve in spec.llm_curves.items():
                    found[model] = max(found.get(model, 0), curve.context_tokens)
            self._pools, self._longest = pools, dict(sorted(found.items()))
        return self._longest
