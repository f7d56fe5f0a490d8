"""Whether an answer that the AWS client has read is the one that was sent.

The client checks DynamoDB's checksum only to decide on another try of its own; with none left it takes the answer as
it is. A body that was cut short it takes for an empty one: a session would seem to have nothing in it.
"""

from __future__ import annotations

from typing import Any, Final
from zlib import crc32

import msgspec
from botocore.exceptions import ChecksumError, HTTPClientError

EVENT: Final = "before-parse.dynamodb"
"""What the client tells of each answer before it reads it."""

_CHECKSUM: Final = "x-amz-crc32"
_ERRORS_FROM: Final = 300


def refuse_what_is_not_whole(response_dict: dict[str, Any], **_: Any) -> None:
    """Refuse a body that is not of its checksum, or without one is no JSON; hears `EVENT`.

    What a proxy says in its own form, with a status of its own, is left to the client.

    Raises:
        ChecksumError, HTTPClientError: the answer is to count as none.
    """
    body, expected = response_dict["body"], response_dict["headers"].get(_CHECKSUM)
    if expected is not None:
        if expected != (actual := str(crc32(body))):
            raise ChecksumError(checksum_type="crc32", expected_checksum=expected, actual_checksum=actual)
    elif response_dict["status_code"] < _ERRORS_FROM or body.lstrip().startswith(b"{"):
        try:
            msgspec.json.decode(body)
        except msgspec.DecodeError as error:
            raise HTTPClientError(error=f"the answer cannot be read: {error}") from error
