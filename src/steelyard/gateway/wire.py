"""The OpenAI wire as structs: requests are parsed and checked here, and nowhere else.

Unknown fields are kept in the raw body for the endpoints behind us. Known ones are checked even
where only an endpoint reads them, so that the caller learns of a slip from one place.
"""

import re
from typing import Annotated, Any, Literal, TypeVar, cast

import msgspec
from msgspec import Meta

from steelyard.gateway.errors_http import RequestError

_T = TypeVar("_T")

_Name = Annotated[str, Meta(min_length=1, max_length=256)]
_Penalty = Annotated[float, Meta(ge=-2.0, le=2.0)]
_Temperature = Annotated[float, Meta(ge=0.0, le=2.0)]
_Share = Annotated[float, Meta(ge=0.0, le=1.0)]
_AtLeastOne = Annotated[int, Meta(ge=1, le=10_000_000)]
_Answers = Annotated[int, Meta(ge=1, le=128)]
_Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
_Stop = Annotated[list[str], Meta(max_length=16)]

_PATH = re.compile(r" - at `\$(.*)`$", re.DOTALL)
_PATH_PART = re.compile(r"\.([^.\[\]]+)|\[(\d+)\]|\[\.\.\.\]")
_MISSING = re.compile(r"missing required field `(.*?)`")
_SHOWN_CHARS = 80
_FORMATS = frozenset(("text", "json_object", "json_schema"))


class StreamOptions(msgspec.Struct, frozen=True):
    """How a streamed answer is sent."""

    include_usage: bool = False


class FunctionDefinition(msgspec.Struct, frozen=True):
    """A function that the model may ask for."""

    name: _Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolDefinition(msgspec.Struct, frozen=True):
    """A tool that the model may ask for; of another type than `function`, a vendor's own."""

    type: str
    function: FunctionDefinition | None = None


class JsonSchemaFormat(msgspec.Struct, frozen=True):
    """A named JSON schema that the answer must follow."""

    schema: dict[str, Any]
    name: str = ""


class ResponseFormat(msgspec.Struct, frozen=True):
    """Which form the answer must have: OpenAI's types, or one that an engine knows."""

    type: str
    json_schema: JsonSchemaFormat | None = None


class ContentPart(msgspec.Struct, frozen=True):
    """A piece of a message: text, an image, a sound."""

    type: str
    text: str | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of a chat."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class _GenerationRequest(msgspec.Struct, frozen=True, kw_only=True):
    model: _Name
    temperature: _Temperature | None = None
    top_p: _Share | None = None
    n: _Answers | None = None
    seed: _Seed | None = None
    stop: str | _Stop | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: _AtLeastOne | None = None
    frequency_penalty: _Penalty | None = None
    presence_penalty: _Penalty | None = None
    logit_bias: dict[str, float] | None = None
    user: str | None = None

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer."""
        if self.stop is None:
            return ()
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a usage chunk."""
        return self.stream_options is not None and self.stream_options.include_usage

    def check(self) -> None:
        """Refuse fields that contradict one another.

        Raises:
            RequestError: The message names the field.
        """
        if self.stream_options is not None and not self.stream:
            msg = "stream_options is only allowed when stream is true; leave it out"
            raise RequestError(msg, param="stream_options")


class ChatRequest(_GenerationRequest, frozen=True, kw_only=True):
    """A request to /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    max_completion_tokens: _AtLeastOne | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    response_format: ResponseFormat | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: str | dict[str, Any] | None = None
    functions: Any = None
    function_call: Any = None

    def check(self) -> None:
        """Refuse fields that contradict one another.

        Raises:
            RequestError: The message names the field.
        """
        super().check()
        if self.functions is not None or self.function_call is not None:
            name = "functions" if self.functions is not None else "function_call"
            msg = f"{name} was replaced by tools and tool_choice; use those"
            raise RequestError(msg, param=name)
        if self.top_logprobs and not self.logprobs:
            msg = f"top_logprobs = {self.top_logprobs} needs logprobs = true"
            raise RequestError(msg, param="top_logprobs")
        wanted = self.response_format
        if wanted is not None and wanted.type == "json_schema" and wanted.json_schema is None:
            msg = 'response_format.type = "json_schema" needs response_format.json_schema.schema'
            raise RequestError(msg, param="response_format")
        for number, tool in enumerate(self.tools or ()):
            if tool.type == "function" and tool.function is None:
                param = f"tools[{number}].function"
                raise RequestError(f"{param} is missing; it is required", param=param)
        self._check_tool_choice()

    @property
    def unusual(self) -> str:
        """Which field has which value that endpoints alone may know? Empty where none has.

        Tools come first: of these, the log knows no calls.
        """
        for number, tool in enumerate(self.tools or ()):
            if tool.type != "function":
                return f"tools[{number}].type = {tool.type[:_SHOWN_CHARS]!r}"
        wanted = self.response_format
        if wanted is not None and wanted.type not in _FORMATS:
            return f"response_format.type = {wanted.type[:_SHOWN_CHARS]!r}"
        choice = self.tool_choice
        if isinstance(choice, dict) and choice.get("type") != "function":
            return f"tool_choice.type = {str(choice.get('type'))[:_SHOWN_CHARS]!r}"
        return ""

    def _check_tool_choice(self) -> None:
        choice = self.tool_choice
        if choice is None:
            return
        if choice == "none" or (choice == "auto" and self.tools):
            return
        if isinstance(choice, str):
            if choice not in {"auto", "required"}:
                msg = f"tool_choice = {choice!r} is not none, auto, required or a named function"
                raise RequestError(msg, param="tool_choice")
            if not self.tools:
                msg = f"tool_choice = {choice!r} needs tools"
                raise RequestError(msg, param="tool_choice")
            return
        if isinstance(choice.get("type"), str) and choice["type"] != "function":
            return
        names = [tool.function.name for tool in self.tools or () if tool.function is not None]
        function: object = choice.get("function")
        name: object = None
        if choice.get("type") == "function" and isinstance(function, dict):
            name = msgspec.convert(function, dict[str, Any]).get("name")
        if name not in names:
            msg = f"tool_choice names {name!r}, which is not one of tools {names[:8]}"
            raise RequestError(msg, param="tool_choice")


class CompletionRequest(_GenerationRequest, frozen=True, kw_only=True):
    """A request to /v1/completions."""

    prompt: str | list[Any]
    logprobs: Annotated[int, Meta(ge=0, le=5)] | None = None
    echo: bool | None = None
    suffix: str | None = None
    best_of: int | None = None

    @property
    def text(self) -> str:
        """The prompt as one text.

        Raises:
            RequestError: The prompt is a batch, or token ids.
        """
        if isinstance(self.prompt, str):
            return self.prompt
        if len(self.prompt) == 1 and isinstance(self.prompt[0], str):
            return self.prompt[0]
        msg = "prompt must be one text; send one request per text, and texts in place of token ids"
        raise RequestError(msg, param="prompt")

    def check(self) -> None:
        """Refuse what cannot be kept.

        Raises:
            RequestError: The message names the field.
        """
        super().check()
        for name, value in (("echo", self.echo), ("suffix", self.suffix)):
            if value:
                raise RequestError(f"{name} is not supported; leave it out", param=name)
        if self.best_of is not None and self.best_of != (self.n or 1):
            msg = f"best_of = {self.best_of} is not supported; leave it out or set it to n"
            raise RequestError(msg, param="best_of")


class EmbeddingsRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request to /v1/embeddings."""

    model: _Name
    input: str | Annotated[list[Any], Meta(min_length=1, max_length=2048)]
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: int | None = None
    user: str | None = None


def parse_json(body: bytes, max_depth: int) -> dict[str, Any]:
    """Read a request body.

    Args:
        body: JSON text.
        max_depth: Deepest nesting of objects and arrays taken.

    Returns:
        The JSON object.

    Raises:
        RequestError: It is not UTF-8, not JSON, not an object, or nested too deeply.
    """
    try:
        document: Any = msgspec.json.decode(body)
    except UnicodeDecodeError as error:
        raise RequestError("the request body is not valid UTF-8") from error
    except RecursionError as error:
        raise _too_deep(max_depth) from error
    except msgspec.DecodeError as error:
        raise RequestError(f"the request body is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise RequestError("the request body is not a JSON object")
    # The cheap bound first: most requests have fewer brackets than levels allowed.
    if body.count(b"[") + body.count(b"{") > max_depth:
        _check_depth(cast("Any", document), max_depth)
    return cast("dict[str, Any]", document)


def parse_request(document: dict[str, Any], kind: type[_T]) -> _T:
    """Turn a JSON object into a request.

    Args:
        document: The JSON object.
        kind: The struct to fill.

    Returns:
        The request, types and ranges checked.

    Raises:
        RequestError: A field is missing or wrong; the message names it and its value.
    """
    try:
        return msgspec.convert(document, kind)
    except msgspec.ValidationError as error:
        raise _explain(str(error), document) from error


def _check_depth(document: Any, max_depth: int) -> None:  # noqa: ANN401 - JSON
    level = [document]
    for _ in range(max_depth):
        level = [child for parent in level for child in _containers(parent)]
        if not level:
            return
    raise _too_deep(max_depth)


def _containers(parent: Any) -> list[Any]:  # noqa: ANN401 - JSON
    children = cast("dict[str, Any]", parent).values() if isinstance(parent, dict) else parent
    return [child for child in children if isinstance(child, dict | list)]


def _too_deep(max_depth: int) -> RequestError:
    return RequestError(f"the request body is nested more than {max_depth} levels deep")


def _explain(problem: str, document: dict[str, Any]) -> RequestError:
    """Say which field is wrong and what stood there."""
    at = _PATH.search(problem)
    what = problem[: at.start()] if at else problem
    path = at.group(1) if at else ""
    missing = _MISSING.search(what)
    if missing:
        param = f"{path}.{missing.group(1)}".lstrip(".")
        return RequestError(f"{param} is missing; it is required", param=param)
    param = path.lstrip(".")
    value: Any = document
    for name, index in _PATH_PART.findall(path):
        if not name and not index:  # `[...]`: some value of an object, msgspec says not which
            return RequestError(f"{param}: {what}", param=param)
        value = value[int(index)] if index else value[name]
    shown = msgspec.json.encode(value)[: _SHOWN_CHARS * 4].decode("utf-8", "ignore")
    if len(shown) > _SHOWN_CHARS:
        shown = shown[:_SHOWN_CHARS] + "..."
    return RequestError(f"{param} = {shown}: {what}", param=param)
