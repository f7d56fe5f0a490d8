"""The short way to DynamoDB for the calls that a chat message makes: signed, sent and read by ourselves.

Nine tenths of what an operation costs through the AWS client is the client's generality. What is general stays its
own: finding credentials and renewing them, endpoints, regions, and every call that is rare.
"""

from mangacache.store.direct.opening import direct_transport
from mangacache.store.direct.transport import DirectTransport

__all__ = ["DirectTransport", "direct_transport"]
