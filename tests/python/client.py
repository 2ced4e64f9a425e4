"""Two users chat through a gateway, in another language's words.

usage: client.py <host:port>, with the generated code on PYTHONPATH
"""

import asyncio
import io
import sys

import websockets
from google.protobuf import proto
from tidegate.v1 import envelope_pb2 as pb

CHAT = "p2p:1:2"
DEADLINE = 10


class Client:
    """One device of one user."""

    def __init__(self, socket, user):
        self.socket = socket
        self.user = user
        self.inbox = []

    @classmethod
    async def connect(cls, address, user):
        url = f"ws://{address}/ws?user={user}&device=python"
        socket = await websockets.connect(url, subprotocols=["tidegate.v1"])
        assert socket.subprotocol == "tidegate.v1", socket.subprotocol
        client = cls(socket, user)
        ready = await client.expect("ready")
        assert (ready.userId, ready.deviceId) == (user, "python"), ready
        return client

    async def send(self, **payload):
        out = io.BytesIO()
        proto.serialize_length_prefixed(pb.Envelope(**payload), out)
        await self.socket.send(out.getvalue())

    async def expect(self, kind, fits=lambda payload: True):
        """The first payload of this kind that fits, whatever comes between."""
        async with asyncio.timeout(DEADLINE):
            while True:
                for envelope in self.inbox:
                    if envelope.WhichOneof("payload") == kind and fits(getattr(envelope, kind)):
                        self.inbox.remove(envelope)
                        return getattr(envelope, kind)
                self.inbox += frames(await self.socket.recv())

    async def beat(self):
        """The heartbeat of one byte and its echo, an envelope without a payload."""
        await self.socket.send(b"\x00")
        async with asyncio.timeout(DEADLINE):
            while not any(envelope.WhichOneof("payload") is None for envelope in self.inbox):
                self.inbox += frames(await self.socket.recv())
        self.inbox = [envelope for envelope in self.inbox if envelope.WhichOneof("payload")]

    async def say(self, message_id, text):
        """Sends a text and returns its ack."""
        request = pb.SendMessageReq(
            conversationId=CHAT, clientMsgId=message_id, type=pb.MESSAGE_TYPE_TEXT, textContent=text
        )
        await self.send(send=request)
        ack = await self.expect("ack", lambda ack: ack.clientMsgId == message_id)
        assert ack.status == pb.ACK_STATUS_STORED, ack
        return ack


def frames(message):
    """The envelopes of one WebSocket message."""
    assert isinstance(message, bytes), message
    source = io.BytesIO(message)
    envelopes = []
    while (envelope := proto.parse_length_prefixed(pb.Envelope, source)) is not None:
        # A burst reads as its messages.
        if envelope.WhichOneof("payload") == "push_batch" and not envelope.push_batch.replay:
            envelopes += [pb.Envelope(push=push) for push in envelope.push_batch.messages]
        else:
            envelopes.append(envelope)
    return envelopes


async def exchange(sender, receiver, seq, text):
    """A message, its arrival, and word of both back to the sender."""
    ack = await sender.say(f"{sender.user}-{seq}", text)
    assert ack.seq == seq, ack
    push = await receiver.expect("push")
    assert (push.seq, push.fromUserId, push.textContent) == (seq, sender.user, text), push
    assert push.serverMsgId == ack.serverMsgId, (push, ack)

    await receiver.send(ack=pb.Ack(conversationId=CHAT, seq=seq, status=pb.ACK_STATUS_DELIVERED))
    delivered = await sender.expect("ack", lambda ack: ack.status == pb.ACK_STATUS_DELIVERED and ack.seq == seq)
    assert (delivered.conversationId, delivered.byUserId) == (CHAT, receiver.user), delivered

    await receiver.send(read=pb.Receipt(conversationId=CHAT, readSeq=seq))
    read = await sender.expect("read", lambda read: read.readSeq == seq)
    assert read.byUserId == receiver.user, read


async def main(address):
    one = await Client.connect(address, 1)
    two = await Client.connect(address, 2)
    await one.beat()
    await exchange(one, two, 1, "hello")
    await exchange(two, one, 2, "你好 🌊")
    await one.send(typing=pb.Typing(conversationId=CHAT, active=True))
    assert (await two.expect("typing")).byUserId == 1
    await two.beat()
    for client in (one, two):
        await client.socket.close()
        assert client.socket.close_code == 1000, client.socket.close_code
    print("ok")


asyncio.run(main(sys.argv[1]))
