"""Agents fitted to public traces: tasks of theirs for those who have no recording.

Each figure below was fitted on 2026-11-23 to one trace as converted on 2026-11-22: medians as they
are, spreads as the standard deviation of the logarithm.

- `coding`: claude_code_weka_dev (callanjfox/kv-cache-tester 94f6046d, Apache-2.0): 535 sessions of
  a coding agent, 37,837 calls. Tool times are clipped at 600 s and have no CPU times of their own:
  those are `local`'s.
- `tau-bench-like`: taubench_gpt4o_airline (sierra-research/tau-bench 59a200c6, MIT): 200 dialogues,
  2,454 calls. The trace has no times: people answer after 20 s in the median and tools take 50 ms,
  which are guesses.
- `local`: agentcg_glm47flash_local (eunomia-bpf/agentcgroup 5af9e7b8): 111 SWE-rebench tasks on a
  local model, 5,641 calls, CPU seconds and memory measured; hidden model calls inside tools taken
  off.
"""

import difflib
import math

import msgspec
import numpy as np

from steelyard.domain.units import BYTES_PER_MIB
from steelyard.domain.workload import Workload, WorkloadStep, WorkloadTask
from steelyard.errors import WorkloadError


class Spread(msgspec.Struct, frozen=True):
    """A lognormal quantity.

    Attributes:
        median: Half of the draws are below.
        sigma: Standard deviation of the logarithm; 0 for a constant.
        most: Draws above are cut down to this.
    """

    median: float
    sigma: float = 0.0
    most: float = math.inf

    def draw(self, random: np.random.Generator) -> float:
        """One draw."""
        value = self.median * math.exp(self.sigma * float(random.standard_normal()))
        return min(value, self.most)


class Agent(msgspec.Struct, frozen=True, kw_only=True):
    """How an agent behaves: it calls a model, then a tool or a person, and the prompt grows.

    Attributes:
        name: Its name.
        calls: Model calls per task, at least one.
        first_tokens: Prompt of the first call.
        new_tokens: Prompt tokens that each later call adds; all before them repeat.
        output_tokens: Length of an answer.
        common_tokens: Prompt tokens with which all its tasks begin (system prompt and tools).
        tool_frac: Share of the calls that a tool follows.
        human_frac: Share of the calls that a person's answer follows.
        tool_s: Wall time of a tool beside its CPU time.
        cpu_s: CPU seconds of a tool on the reference core.
        memory_mib: Peak memory of a tool.
        human_s: A person's gap.
        longest_tokens: A prompt that would be longer is begun anew (the agent compacts it).
        tools: Names of its tools with their shares.
    """

    name: str
    calls: Spread
    first_tokens: Spread
    new_tokens: Spread
    output_tokens: Spread
    common_tokens: int
    tool_frac: float
    human_frac: float
    tool_s: Spread
    cpu_s: Spread
    memory_mib: Spread
    human_s: Spread
    longest_tokens: int
    tools: dict[str, float]


# CPU seconds of a tool: median 3 ms, and a heavy tail (mean 0.4 s) up to minutes of tests.
_CPU_S = Spread(0.0029, 2.83, 60.0)

AGENTS: tuple[Agent, ...] = (
    Agent(
        name="coding",
        calls=Spread(45.0, 1.18, 561.0),
        first_tokens=Spread(22_570.0, 1.11, 150_000.0),
        new_tokens=Spread(699.0, 1.37, 50_000.0),
        output_tokens=Spread(217.0, 1.18, 32_000.0),
        common_tokens=15_000,
        tool_frac=0.87,
        human_frac=0.13,
        tool_s=Spread(9.0, 1.66, 600.0),
        cpu_s=_CPU_S,
        memory_mib=Spread(218.0, 0.15, 2041.0),
        human_s=Spread(122.0, 1.76, 3600.0),
        longest_tokens=300_000,
        tools={"Bash": 0.5, "Read": 0.3, "Edit": 0.2},
    ),
    Agent(
        name="tau-bench-like",
        calls=Spread(11.0, 0.46, 30.0),
        first_tokens=Spread(1275.0, 0.007),
        new_tokens=Spread(129.0, 0.94, 4000.0),
        output_tokens=Spread(43.0, 0.85, 800.0),
        common_tokens=1250,
        tool_frac=0.44,
        human_frac=0.56,
        tool_s=Spread(0.05, 0.5),
        cpu_s=Spread(0.005, 0.5),
        memory_mib=Spread(64.0, 0.15),
        human_s=Spread(20.0, 0.7, 120.0),
        longest_tokens=32_000,
        tools={"get_reservation_details": 0.5, "search_direct_flight": 0.25, "other": 0.25},
    ),
    Agent(
        name="local",
        calls=Spread(46.0, 0.45, 145.0),
        first_tokens=Spread(13_390.0, 0.022),
        new_tokens=Spread(409.0, 1.21, 30_000.0),
        output_tokens=Spread(144.0, 1.08, 8000.0),
        common_tokens=13_000,
        tool_frac=1.0,
        human_frac=0.0,
        tool_s=Spread(0.031, 2.24, 600.0),
        cpu_s=_CPU_S,
        memory_mib=Spread(218.0, 0.15, 2041.0),
        human_s=Spread(0.0),
        longest_tokens=120_000,
        tools={"Bash": 0.5, "Read": 0.2, "Edit": 0.1, "Grep": 0.1, "TodoWrite": 0.1},
    ),
)
"""All agents, by name."""


def agent_named(name: str) -> Agent:
    """Which agent has this name?

    Raises:
        WorkloadError: None has; the message holds the nearest names.

    >>> agent_named("local").tool_frac
    1.0
    """
    agents = {agent.name: agent for agent in AGENTS}
    if name not in agents:
        near = difflib.get_close_matches(name, agents, n=2)
        cure = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(agents)}"
        raise WorkloadError(f"agent {name!r} is unknown; {cure}")
    return agents[name]


def agent_tasks(agent: Agent, model: str, times_s: list[float], seed: int) -> Workload:
    """What would tasks of this agent look like?

    Args:
        agent: The agent.
        model: Name of the model that it calls.
        times_s: When its tasks arrive, one each, ascending.
        seed: Of all draws.

    Returns:
        The workload; the same for the same arguments.

    Raises:
        WorkloadError: No arrivals.
    """
    if not times_s:
        raise WorkloadError(f"agent {agent.name}: no arrivals, so no tasks; ask for at least one")
    random = np.random.default_rng(seed)
    return Workload(
        name=agent.name,
        tasks=tuple(
            WorkloadTask(
                task_id=f"{agent.name}-{number}",
                agent=agent.name,
                arrival_s=arrival_s,
                steps=_steps(agent, model, random),
            )
            for number, arrival_s in enumerate(times_s)
        ),
        source=f"generated: agent {agent.name}, {len(times_s)} tasks, seed {seed}",
    )


def _steps(agent: Agent, model: str, random: np.random.Generator) -> tuple[WorkloadStep, ...]:
    steps: list[WorkloadStep] = []
    calls = max(1, round(agent.calls.draw(random)))
    prompt, shared = max(1, round(agent.first_tokens.draw(random))), 0
    for call in range(calls):
        if prompt > agent.longest_tokens:
            prompt = max(1, round(agent.first_tokens.draw(random)))
            shared = min(prompt, agent.common_tokens)
        output = max(1, round(agent.output_tokens.draw(random)))
        steps.append(
            WorkloadStep(
                step_id=len(steps),
                parents=(len(steps) - 1,) if steps else (),
                kind="llm",
                name="think",
                model=model,
                prompt_tokens=prompt,
                output_tokens=output,
                shared_prefix_tokens=shared,
                common_prefix_tokens=min(prompt, agent.common_tokens),
            )
        )
        if call + 1 < calls:
            steps.append(_between(agent, len(steps), random))
        shared = prompt
        prompt += max(1, round(agent.new_tokens.draw(random)))
    return tuple(steps)


def _between(agent: Agent, number: int, random: np.random.Generator) -> WorkloadStep:
    """What comes before the next call: a tool, or a person."""
    if float(random.random()) * (agent.tool_frac + agent.human_frac) < agent.human_frac:
        return WorkloadStep(
            step_id=number,
            parents=(number - 1,),
            kind="human",
            name="person",
            think_or_tool_s=agent.human_s.draw(random),
        )
    names = list(agent.tools)
    tool = str(random.choice(names, p=list(agent.tools.values())))
    return WorkloadStep(
        step_id=number,
        parents=(number - 1,),
        kind="tool",
        name=tool,
        tool=tool,
        cpu_s=agent.cpu_s.draw(random),
        think_or_tool_s=agent.tool_s.draw(random),
        memory_bytes=round(agent.memory_mib.draw(random) * BYTES_PER_MIB),
    )
