"""What a page sent: the fields of a form, bounded."""

from urllib.parse import parse_qs

from starlette.requests import Request

from steelyard.errors import ConfigError

_MAX_FORM_BYTES = 64 * 1024


async def read_form(request: Request) -> dict[str, str]:
    """The fields of a form, the last of each name.

    Raises:
        ConfigError: The form is too long, or no UTF-8.
    """
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > _MAX_FORM_BYTES:
            raise ConfigError(f"the form is longer than {_MAX_FORM_BYTES} bytes; send less")
    try:
        fields = parse_qs(bytes(body).decode(), keep_blank_values=True, max_num_fields=100)
    except ValueError as error:
        raise ConfigError(f"the form cannot be read: {error}; send it from the page") from error
    return {name: values[-1] for name, values in fields.items()}
