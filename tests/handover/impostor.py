#!/usr/bin/env python3
"""Says it is the new process of a hot restart, and fails where it is told to.

    impostor.py PLAN serve ... --check | --handover
"""

import array
import os
import signal
import socket
import sys
import time


def varint(n):
    out = bytearray()
    while n > 0x7F:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def field(number, value):
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def parse(data):
    fields, at = [], 0

    def take():
        nonlocal at
        n = shift = 0
        while True:
            byte = data[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return n

    while at < len(data):
        key = take()
        if key & 7 == 0:
            fields.append((key >> 3, take()))
        else:
            length = take()
            fields.append((key >> 3, data[at:at + length]))
            at += length
    return fields


plan = sys.argv[1]
if "--check" in sys.argv:
    sys.exit(0)
control = socket.socket(fileno=0)
control.setblocking(True)


def send(kind, body=b""):
    control.send(field(kind, body))


def receive():
    data, ancillary, flags, _ = control.recvmsg(65536, socket.CMSG_SPACE(253 * 4))
    if not data:
        sys.exit(3)
    descriptors = array.array("i")
    for _, _, more in ancillary:
        descriptors.frombytes(more[:len(more) - len(more) % 4])
    [(kind, body)] = parse(data)
    return kind, dict(parse(body)), parse(body), list(descriptors)


def at(step):
    return plan.partition(":")[0] == step


def reached(step):
    how = plan.partition(":")[2]
    if not at(step):
        return
    if how == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "abort":
        os.abort()
    if how == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if how == "orphan":
        os.kill(os.getppid(), signal.SIGKILL)
    if how == "hang":
        time.sleep(600)
    if how == "garbage":
        control.send(b"\xff" * 100)
        time.sleep(600)
    if how == "refuse":
        send(12, field(1, b"I do not feel like it"))
        time.sleep(600)


reached("start")
newest = 0 if plan == "old" else 1
hello = field(1, os.getpid()) + field(2, b"impostor") + field(4, 99 if plan == "new" else newest) + field(5, 100 if plan == "new" else newest)
if plan == "elsewhere":
    hello += field(6, field(1, b"listen") + field(2, b"192.0.2.1:1"))
send(1, hello)
receive()
reached("welcome")
send(3)
reached("ready")
while True:
    kind, body, _, descriptors = receive()
    if kind == 4:
        reached("sockets")
        send(5, field(1, len(descriptors)))
    elif kind == 7:
        reached("cut")
    elif kind == 8:
        reached("state")
        count, digest = body.get(4, 0), body.get(3, 0)
        if plan == "count":
            count += 1
        if plan == "digest":
            digest ^= 1
        send(9, field(1, count) + field(2, digest))
        if plan in ("count", "digest"):
            time.sleep(600)
        if at("commit"):
            # It comes, and whoever is told has everything.
            receive()
            reached("commit")
        # Else what would follow is the commit, and the loss of every client.
        sys.exit(4)
