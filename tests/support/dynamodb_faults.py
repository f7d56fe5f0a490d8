"""What a DynamoDB, or what stands before it, may do to a request that came whole."""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from dynamodb_server import LATE_S, Answer

if TYPE_CHECKING:
    from dynamodb_server import Exchange, Fault


async def lost(exchange: Exchange) -> None:
    exchange.reset()


async def lost_quietly(exchange: Exchange) -> None:
    exchange.close()


async def done_and_reset(exchange: Exchange) -> None:
    await exchange.apply()
    exchange.reset()


async def done_and_closed(exchange: Exchange) -> None:
    await exchange.apply()
    exchange.close()


async def cut_in_status(exchange: Exchange) -> None:
    await exchange.apply()
    await exchange.write(b"HTTP/1.1 20")
    exchange.close()


async def cut_in_head(exchange: Exchange) -> None:
    head = (await exchange.apply()).head()
    await exchange.write(head[: len(head) // 2])
    exchange.close()


async def cut_in_body(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head() + answer.body[: len(answer.body) // 2])
    exchange.close()


async def reset_in_body(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head() + answer.body[: len(answer.body) // 2])
    exchange.reset()


async def shortened(exchange: Exchange) -> None:
    """A proxy that lost the end of the body, and says that this is all."""
    answer = await exchange.apply()
    kept = answer.body[:-1]
    await exchange.write(answer.head(Content_Length=str(len(kept))) + kept)


async def shortened_unsummed(exchange: Exchange) -> None:
    """The same, with the checksum gone as well."""
    answer = await exchange.apply()
    kept = answer.body[:-1]
    await exchange.write(answer.head(Content_Length=str(len(kept)), x_amz_crc32="") + kept)


async def wrong_checksum(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(x_amz_crc32=str(zlib.crc32(answer.body) ^ 1)) + answer.body)


async def checksum_that_is_none(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(x_amz_crc32="none") + answer.body)


async def changed_on_the_way(exchange: Exchange) -> None:
    answer = await exchange.apply()
    changed = answer.body.replace(b"{", b"{ ", 1)  # still good JSON, of another length
    await exchange.write(answer.head(Content_Length=str(len(changed))) + changed)


async def changed_refusal(exchange: Exchange) -> None:
    """A refusal that was changed on the way says nothing for certain."""
    refusal = Answer.error("ConditionalCheckFailedException", Item={"PK": {"S": "x"}})
    await exchange.write(refusal.head() + refusal.body.replace(b'"x"', b'"y"'))


async def shortened_refusal(exchange: Exchange) -> None:
    refusal = Answer.error("ConditionalCheckFailedException", Item={"PK": {"S": "x"}})
    kept = refusal.body[:-2]
    await exchange.write(refusal.head(Content_Length=str(len(kept)), x_amz_crc32="") + kept)


async def html_that_says_200(exchange: Exchange) -> None:
    """What a captive portal or a proxy's own page is."""
    await exchange.write(Answer(200, b"<html>Please sign in</html>").head(x_amz_crc32="", Content_Type="text/html"))
    await exchange.write(b"<html>Please sign in</html>")


async def internal_error(exchange: Exchange) -> None:
    await exchange.write(Answer.error("InternalServerError", status=500).wire)


async def done_and_internal_error(exchange: Exchange) -> None:
    await exchange.apply()
    await exchange.write(Answer.error("InternalServerError", status=500).wire)


async def unavailable(exchange: Exchange) -> None:
    page = Answer(503, b"<html><h1>503 Service Unavailable</h1></html>")
    await exchange.write(page.head(x_amz_crc32="", Content_Type="text/html") + page.body)


async def bad_gateway(exchange: Exchange) -> None:
    """Of a proxy that has lost the server: whether that did what was asked, nobody knows."""
    await exchange.apply()
    await exchange.write(Answer(502, b"").head(x_amz_crc32="", Content_Type=""))


async def slow_body(exchange: Exchange) -> None:
    """Bytes keep coming, so that no single read is slow, and the whole takes too long."""
    wire = (await exchange.apply()).wire
    for place in range(len(wire)):
        await exchange.write(wire[place : place + 1])
        await exchange.impatience(LATE_S / len(wire) * 4)
    exchange.close()


async def late(exchange: Exchange) -> None:
    """The answer comes when nobody waits for it any more."""
    answer = await exchange.apply()
    await exchange.impatience()
    await exchange.write(answer.wire)


async def held_up(exchange: Exchange) -> None:
    """The request is done when its sender has been told of a time-out, and has perhaps gone on."""
    await exchange.impatience()
    await exchange.answer()


async def garbage(exchange: Exchange) -> None:
    await exchange.write(b"\x16\x03\x01" + exchange.noise.randbytes(200))
    exchange.close()


async def garbage_without_end(exchange: Exchange) -> None:
    """No line of it ends, and the connection stays open."""
    await exchange.write(b"x" * 2**20)
    await exchange.impatience()
    exchange.close()


async def huge_header(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(x_padding="x" * 2**20) + answer.body)


async def headers_without_end(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 200 OK\r\n" + b"".join(b"x-%d: %d\r\n" % (i, i) for i in range(200_000)))
    await exchange.impatience()
    exchange.close()


async def length_that_is_none(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(Content_Length="-1") + answer.body)
    exchange.close()


UNANSWERED: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        lost, lost_quietly, done_and_reset, done_and_closed, cut_in_status, cut_in_head, cut_in_body, reset_in_body,
        shortened, shortened_unsummed, wrong_checksum, checksum_that_is_none, changed_on_the_way, changed_refusal,
        shortened_refusal, html_that_says_200,
        internal_error, done_and_internal_error, unavailable, bad_gateway, garbage, garbage_without_end, huge_header,
        headers_without_end, length_that_is_none,
    )
}  # fmt: skip
"""After these nobody can tell whether it was done."""

TOO_LATE: dict[str, Fault] = {fault.__name__: fault for fault in (slow_body, late, held_up)}
"""These outlast a time-out; the outcome is open as well."""


# What is odd but right: it must be taken, and must not disturb the next call


async def in_chunks(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(Content_Length="", Transfer_Encoding="chunked"))
    middle = len(answer.body) // 2
    for piece in (answer.body[:middle], answer.body[middle:]):
        if piece:
            await exchange.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    await exchange.write(b"0\r\n\r\n")


async def byte_by_byte(exchange: Exchange) -> None:
    for byte in (await exchange.apply()).wire:
        await exchange.write(bytes((byte,)))
        await asyncio.sleep(0)


async def continued(exchange: Exchange) -> None:
    await exchange.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    await exchange.answer()


async def last_on_its_connection(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(Connection="close") + answer.body)
    exchange.close()


async def closed_after_it(exchange: Exchange) -> None:
    """The server closes a connection that was to be kept, without having said so."""
    await exchange.answer()
    exchange.close()


async def unsummed(exchange: Exchange) -> None:
    answer = await exchange.apply()
    await exchange.write(answer.head(x_amz_crc32="") + answer.body)


async def answered_twice(exchange: Exchange) -> None:
    """An answer too many, to nothing: it must not be taken for the next call's."""
    await exchange.write((await exchange.apply()).wire + Answer.of({"Item": {"PK": {"S": "an answer too many"}}}).wire)


ODD: dict[str, Fault] = {
    fault.__name__: fault
    for fault in (
        in_chunks, byte_by_byte, continued, last_on_its_connection, closed_after_it, unsummed, answered_twice,
    )
}  # fmt: skip


async def reset_on_next(exchange: Exchange) -> None:
    """The connection is broken in the moment in which the next request comes on it."""
    await exchange.answer()
    exchange.reset_on_next()


def saying(answer: Answer) -> Fault:
    """Return the fault of a server that answers this and does nothing."""

    async def said(exchange: Exchange) -> None:
        await exchange.write(answer.wire)

    return said
