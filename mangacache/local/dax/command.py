"""`mangacache dax-emulator`: what its arguments mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mangacache.errors import Invalid
from mangacache.local.dax.control import fetch_status
from mangacache.local.dax.options import EmulatorOptions, parse_size
from mangacache.local.dax.report import status_lines

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

__all__ = ["fetch_status", "options_of", "status_lines"]


def options_of(arguments: argparse.Namespace, environment: Mapping[str, str]) -> EmulatorOptions:
    """Return the options that a command line means.

    Raises:
        Invalid: an argument that cannot be meant.
    """
    memory = parse_size(arguments.memory)
    return EmulatorOptions(
        dynamodb_endpoint=arguments.dynamodb_endpoint or environment.get("AWS_ENDPOINT_URL_DYNAMODB") or None,
        region=arguments.region,
        host=arguments.host,
        port=arguments.port,
        other_ports=arguments.other_ports,
        fault_port=arguments.fault_port,
        nodes=arguments.nodes,
        item_ttl_s=arguments.item_ttl,
        query_ttl_s=arguments.query_ttl,
        item_bytes=memory // 2 if arguments.item_memory is None else parse_size(arguments.item_memory),
        query_bytes=memory // 2 if arguments.query_memory is None else parse_size(arguments.query_memory),
        replication_lag_s=arguments.lag,
        advertise=arguments.advertise,
        certificate=arguments.certificate,
        key=arguments.key,
        lists=arguments.lists,
        secrets=_secrets(environment) if arguments.check_signatures else None,
    )


def _secrets(environment: Mapping[str, str]) -> dict[str, str]:
    access_key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not access_key or not secret:
        raise Invalid("--check-signatures needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: set both")
    return {access_key: secret}
