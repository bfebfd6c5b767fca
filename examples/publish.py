#!/usr/bin/env python3
"""Publishes an event of an application to NATS, without any package.

    python3 examples/publish.py                                        the tutorial's own text
    python3 examples/publish.py all_patient_page_data '{"floor":3}'    any topic, any JSON

NATS_URL says where the server is and who publishes, by default
nats://application:application@127.0.0.1:4222. It prints what JetStream answers: the stream and the
place in it. Only then is the event stored; every browser of the topic gets it, and those that are
away get it when they return.

With the package nats-py the same is

    await nats.connect(url).jetstream().publish(f"rowcast.event.{topic}", body, headers=…)
"""

import json
import os
import socket
import sys
import uuid
from urllib.parse import unquote, urlsplit

topic = sys.argv[1] if len(sys.argv) > 1 else "all_patient_page_data"
data = json.loads(sys.argv[2]) if len(sys.argv) > 2 else "更新数据了,个人信息"
url = urlsplit(os.environ.get("NATS_URL", "nats://application:application@127.0.0.1:4222"))

event = {"type": topic, "data": data}
body = json.dumps(event, ensure_ascii=False).encode()
# The same id within the stream's duplicate window is stored once, so that this can be tried again.
headers = f"NATS/1.0\r\nNats-Msg-Id: {uuid.uuid4()}\r\n\r\n".encode()
inbox = f"_INBOX.{uuid.uuid4().hex}"
options = {"verbose": False, "headers": True, "no_responders": True, "lang": "python", "version": "1"}
if url.username:
    options.update(user=unquote(url.username), **{"pass": unquote(url.password or "")})

with socket.create_connection((url.hostname, url.port or 4222), timeout=10) as server:
    lines = server.makefile("rb")
    lines.readline()  # INFO
    server.sendall(
        f"CONNECT {json.dumps(options)}\r\nSUB {inbox} 1\r\n".encode()
        + f"HPUB rowcast.event.{topic} {inbox} {len(headers)} {len(headers) + len(body)}\r\n".encode()
        + headers + body + b"\r\n"
    )
    for line in lines:
        words = line.decode().split()
        if words[:1] == ["PING"]:
            server.sendall(b"PONG\r\n")
        elif words[:1] == ["-ERR"]:
            sys.exit(line.decode().strip())
        elif words[:1] == ["HMSG"]:
            sys.exit(f"no stream takes rowcast.event.{topic}: is a producer running?")
        elif words[:1] == ["MSG"]:
            answer = json.loads(lines.read(int(words[-1])))
            print(json.dumps(answer))
            sys.exit("not stored" if "error" in answer else 0)
    sys.exit("the server closed the connection")
