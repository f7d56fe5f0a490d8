"""Whom a link trusts."""

from __future__ import annotations

import ssl

from mangacache.errors import Invalid


def tls_context(ca_file: str | None) -> ssl.SSLContext:
    """Return the context that every connection of a link shares: it takes long to make.

    Raises:
        Invalid: `ca_file` cannot be used.
    """
    try:
        return ssl.create_default_context(cafile=ca_file)
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        raise Invalid(f"redis_ca_file: {ca_file} cannot be used as a file of certificates ({error})") from error
