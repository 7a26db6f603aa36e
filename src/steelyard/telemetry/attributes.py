"""What do spans say of an attempt, a step, a task? No text of prompts, answers or arguments."""

from collections.abc import Mapping, Sequence
from urllib.parse import urlsplit

from steelyard.domain.pool import PoolSpec
from steelyard.domain.task import LlmCall, Step
from steelyard.ledger.ledger import AttemptRecord, TaskRecord
from steelyard.ledger.recording import workload_step
from steelyard.telemetry import names
from steelyard.telemetry.span import AttributeValue

Attributes = dict[str, AttributeValue]
# Steps that nobody named are called by what was asked.
_OPERATIONS = {"completion": "text_completion", "embedding": "embeddings", "rerank": "rerank"}


def operation_of(step: Step) -> str:
    """Which operation is a step, in the words of the GenAI conventions?

    The log does not say which path was asked; a step that its caller named is taken for `chat`,
    or for `embeddings` where it can answer nothing.

    Args:
        step: The step.
    """
    if not isinstance(step.call, LlmCall):
        return "execute_tool"
    if step.name in _OPERATIONS:
        return _OPERATIONS[step.name]
    return "chat" if step.call.max_output_tokens > 0 else "embeddings"


def attempt_attributes(
    record: AttemptRecord,
    spec: PoolSpec | None,
    earlier: Sequence[AttemptRecord],
    address: str = "",
) -> Attributes:
    """What does the span of an attempt say?

    Args:
        record: The attempt.
        spec: Its pool; None where the log does not tell.
        earlier: Attempts of the task that went well, of steps with lower numbers.
        address: Base URL of its replica; empty where it has none.
    """
    step, decision, usage = record.step, record.decision, record.usage
    told: Attributes = {
        names.OPERATION: operation_of(step),
        names.PROVIDER: names.STEELYARD_PROVIDER,
        names.ATTEMPT: step.attempt,
        names.OUTCOME: record.outcome,
        names.POOL: decision.pool,
        names.REPLICA: decision.replica,
        names.COST_USD: record.cost_usd,
        names.POLICY: decision.policy,
        names.REASON: decision.reason,
        names.WAIT_S: _begun_s(record) - record.placed_s,
        names.WALL_S: usage.wall_s,
        names.PREDICTED_FINISH_S: decision.predicted_finish_s,
        names.PREDICTED_COST_USD: decision.predicted_cost_usd,
        **step_attributes(step),
        **_pool_attributes(spec, address),
    }
    if decision.slack_s is not None:
        told[names.SLACK_S] = decision.slack_s
    if record.outcome == "failed":
        told[names.ERROR] = record.error_code or "_OTHER"
    return told | _usage_attributes(record, spec, earlier)


def _begun_s(record: AttemptRecord) -> float:
    return record.finished_s if record.started_s is None else record.started_s


def _usage_attributes(
    record: AttemptRecord, spec: PoolSpec | None, earlier: Sequence[AttemptRecord]
) -> Attributes:
    call, usage = record.step.call, record.usage
    pools: Mapping[str, PoolSpec] = {} if spec is None else {spec.name: spec}
    seen = workload_step(pools, record, earlier, record.step.parents)
    if not isinstance(call, LlmCall):
        return {
            names.TOOL: call.tool,
            names.CPU_S: usage.cpu_s,
            names.CPU_REFERENCE_S: seen.cpu_s,
            names.MEMORY_BYTES: usage.memory_bytes,
        }
    told: Attributes = {
        names.MODEL: call.model,
        names.INPUT_TOKENS: usage.input_tokens,
        names.OUTPUT_TOKENS: usage.output_tokens,
        names.CACHED_TOKENS: usage.cached_tokens,
        names.SHARED_PREFIX_TOKENS: seen.shared_prefix_tokens,
    }
    if call.max_output_tokens > 0:
        told[names.MAX_TOKENS] = call.max_output_tokens
    if usage.start_to_first_token_s is not None:
        told[names.TIME_TO_FIRST_CHUNK] = usage.start_to_first_token_s
    return told


def step_attributes(step: Step) -> Attributes:
    """What do the spans of a step and of its attempts say of it?

    Args:
        step: The step.
    """
    told: Attributes = {
        names.CONVERSATION: step.task_id,
        names.AGENT: step.agent,
        names.STEP_ID: step.step_id,
        names.STEP_NAME: step.name,
        names.STEP_KIND: step.kind,
    }
    if step.parents:
        told[names.STEP_PARENTS] = step.parents
    return told | _terms(step.deadline_s, step.budget_usd)


def task_attributes(record: TaskRecord) -> Attributes:
    """What does the span of an ended task say?

    Args:
        record: The task.
    """
    told: Attributes = {
        names.OPERATION: "invoke_agent",
        names.PROVIDER: names.STEELYARD_PROVIDER,
        names.CONVERSATION: record.task_id,
        names.AGENT: record.agent,
        names.TASK_STATUS: record.status,
        names.TASK_MET_SLO: record.met_slo,
        names.TASK_SUBMITTED_S: record.submitted_s,
        names.COST_USD: record.cost_usd,
        **_terms(record.deadline_s, record.budget_usd),
    }
    if record.status == "failed":
        told[names.ERROR] = record.error_code or "_OTHER"
    return told


def _terms(deadline_s: float | None, budget_usd: float | None) -> Attributes:
    told: Attributes = {}
    if deadline_s is not None:
        told[names.TASK_DEADLINE_S] = deadline_s
    if budget_usd is not None:
        told[names.TASK_BUDGET_USD] = budget_usd
    return told


def _pool_attributes(spec: PoolSpec | None, address: str) -> Attributes:
    told: Attributes = {}
    if spec is not None:
        told |= {names.POOL_PROVIDER: spec.provider, names.POOL_HARDWARE: spec.hardware}
        if spec.region:
            told[names.CLOUD_REGION] = spec.region
    url = urlsplit(address)
    if url.hostname:
        told[names.SERVER_ADDRESS] = url.hostname
        told[names.SERVER_PORT] = url.port or (443 if url.scheme == "https" else 80)
    return told
