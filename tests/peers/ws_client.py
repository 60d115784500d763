"""A session's messages by somebody else's WebSocket: python3-websockets (docs/spec/http.md, B1 and B2). For the
distribution's Python.

    ws_client.py URL CA HEX

Sends the bytes as one binary message, reads one, and closes. Prints JSON: the subprotocol, the message, the code of the close.
"""
import asyncio
import json
import ssl
import sys

import websockets


async def talk(url, ca, sent):
    context = ssl.create_default_context(cafile=ca) if url.startswith("wss:") else None
    async with websockets.connect(url, ssl=context, subprotocols=["beam.v1"], compression=None) as socket:
        await socket.send(bytes.fromhex(sent))
        message = await asyncio.wait_for(socket.recv(), 20)
        await socket.close(1000)
        return {"protocol": socket.subprotocol, "came": message.hex(), "code": socket.close_code}


print(json.dumps(asyncio.run(talk(*sys.argv[1:]))))
