"""A browser: one WebSocket to the published port, opened again with its cursor whenever it breaks."""

import base64
import json
import os
import socket
import threading
import time

# The gateway pings every 25 s: a socket that is silent for longer is dead.
SILENCE_SECONDS = 40
AGAIN_SECONDS = 0.3


class Browser(threading.Thread):
    """Notes each value that the column `age` of the first patient takes, in the order of arrival."""

    def __init__(self, port):
        super().__init__(daemon=True)
        self.port = port
        self.cursor = None
        self.seen = []
        self.resets = []
        self.opened = 0

    def run(self):
        while True:
            try:
                self.follow()
            except (OSError, ValueError):
                time.sleep(AGAIN_SECONDS)

    def follow(self):
        with socket.create_connection(("127.0.0.1", self.port), timeout=SILENCE_SECONDS) as stream:
            since = f"&since={self.cursor}" if self.cursor else ""
            self.reader = stream.makefile("rb")
            handshake(stream, self.reader, f"/socket/all/?types=patient{since}", self.port)
            self.opened += 1
            if not self.cursor:
                send(stream, 1, b'{"type":"patient","rid":1,"id":1}')
            while True:
                opcode, payload = receive(self.reader)
                if opcode == 9:
                    send(stream, 10, payload)
                elif opcode == 8:
                    raise ValueError("closed by the server")
                elif opcode == 1:
                    self.take(json.loads(payload))

    def take(self, frame):
        if frame["type"] == "sys:reset":
            self.resets.append(frame["reason"])
        if frame["type"] == "patient" and frame.get("op") == "update" and frame["key"] == {"id": 1}:
            self.seen.append(frame["data"]["age"])
        self.cursor = frame.get("cursor", self.cursor)


def handshake(stream, reader, path, port):
    key = base64.b64encode(os.urandom(16)).decode()
    stream.sendall(
        f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
    )
    if b" 101 " not in reader.readline():
        raise ValueError("no upgrade")
    while reader.readline() not in (b"\r\n", b""):
        pass


def send(stream, opcode, payload):
    """One whole message of less than 126 bytes, masked with zeros."""
    stream.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + bytes(4) + payload)


def receive(reader):
    """One whole message: the server sends each in one frame."""
    first, length = exactly(reader, 2)
    if length == 126:
        length = int.from_bytes(exactly(reader, 2), "big")
    elif length == 127:
        length = int.from_bytes(exactly(reader, 8), "big")
    return first & 0x0F, exactly(reader, length)


def exactly(reader, count):
    data = reader.read(count)
    if len(data) < count:
        raise ValueError("cut")
    return data
