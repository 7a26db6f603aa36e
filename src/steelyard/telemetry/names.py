"""Names of attributes and metrics.

Those of `gen_ai`, `server`, `cloud` and `error` are OpenTelemetry's (semantic conventions 1.44, the
package opentelemetry-semantic-conventions 0.66b2; a test compares). Those of `steelyard` are ours.
"""

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
AGENT = "gen_ai.agent.name"
CONVERSATION = "gen_ai.conversation.id"
MODEL = "gen_ai.request.model"
MAX_TOKENS = "gen_ai.request.max_tokens"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
CACHED_TOKENS = "gen_ai.usage.cache_read.input_tokens"
TIME_TO_FIRST_CHUNK = "gen_ai.response.time_to_first_chunk"
TOOL = "gen_ai.tool.name"
TOKEN_TYPE = "gen_ai.token.type"  # noqa: S105 - no secret
ERROR = "error.type"
SERVER_ADDRESS = "server.address"
SERVER_PORT = "server.port"
CLOUD_REGION = "cloud.region"

OPERATION_DURATION = "gen_ai.client.operation.duration"
TOKEN_USAGE = "gen_ai.client.token.usage"  # noqa: S105 - no secret
TIME_TO_FIRST_TOKEN = "gen_ai.server.time_to_first_token"  # noqa: S105 - no secret
TIME_PER_OUTPUT_TOKEN = "gen_ai.server.time_per_output_token"  # noqa: S105 - no secret

STEELYARD_PROVIDER = "steelyard"

TASK_STATUS = "steelyard.task.status"
TASK_SUBMITTED_S = "steelyard.task.submitted_s"
TASK_DEADLINE_S = "steelyard.task.deadline_s"
TASK_BUDGET_USD = "steelyard.task.budget_usd"
TASK_MET_SLO = "steelyard.task.met_slo"
STEP_ID = "steelyard.step.id"
STEP_NAME = "steelyard.step.name"
STEP_PARENTS = "steelyard.step.parents"
STEP_KIND = "steelyard.step.kind"
STEP_ATTEMPTS = "steelyard.step.attempts"
ATTEMPT = "steelyard.attempt"
OUTCOME = "steelyard.attempt.outcome"
POOL = "steelyard.pool"
POOL_PROVIDER = "steelyard.pool.provider"
POOL_HARDWARE = "steelyard.pool.hardware"
REPLICA = "steelyard.replica"
COST_USD = "steelyard.cost_usd"
SLACK_S = "steelyard.slack_s"
REASON = "steelyard.reason"
POLICY = "steelyard.policy"
WAIT_S = "steelyard.wait_s"
WALL_S = "steelyard.wall_s"
PREDICTED_FINISH_S = "steelyard.predicted_finish_s"
PREDICTED_COST_USD = "steelyard.predicted_cost_usd"
SHARED_PREFIX_TOKENS = "steelyard.shared_prefix_tokens"
CPU_S = "steelyard.cpu_s"
CPU_REFERENCE_S = "steelyard.cpu_reference_s"
MEMORY_BYTES = "steelyard.memory_bytes"
COST_METRIC = "steelyard.cost"
