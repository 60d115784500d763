"""A session's stream by somebody else's HTTP/2: python3-h2 (docs/spec/http.md, S1 to S3). For the distribution's Python.

    h2_client.py URL CA HEX LENGTH

Sends the bytes on a POST that does not end, and reads so many of its answer's body meanwhile; then ends its direction,
and waits for the end of the other. Prints JSON: the answer's headers, the bytes that came first, how it ended.
"""
import json
import socket
import ssl
import sys
import urllib.parse

import h2.config
import h2.connection
import h2.events

url, ca, sent, wanted = urllib.parse.urlsplit(sys.argv[1]), sys.argv[2], bytes.fromhex(sys.argv[3]), int(sys.argv[4])
link = socket.create_connection((url.hostname, url.port), 20)
if url.scheme == "https":
    context = ssl.create_default_context(cafile=ca)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.set_alpn_protocols(["h2"])
    link = context.wrap_socket(link, server_hostname=url.hostname)
    if link.selected_alpn_protocol() != "h2":
        sys.exit(f"the server speaks {link.selected_alpn_protocol()}")
connection = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
connection.initiate_connection()
stream = connection.get_next_available_stream_id()
connection.send_headers(stream, [
    (":method", "POST"), (":scheme", url.scheme), (":authority", url.netloc), (":path", url.path),
    ("content-type", "application/x-beam"), ("beam-version", "1")])
connection.send_data(stream, sent)
answer, came, end, ending = {}, b"", None, False
while end is None:
    link.sendall(connection.data_to_send())
    data = link.recv(65536)
    if not data:
        end = "connection"
    for event in connection.receive_data(data):
        if isinstance(event, h2.events.ResponseReceived):
            answer = dict(event.headers)
        elif isinstance(event, h2.events.DataReceived):
            came += event.data
            if event.flow_controlled_length:
                connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, h2.events.StreamReset):
            end = f"reset {int(event.error_code)}"
        elif isinstance(event, h2.events.StreamEnded):
            end = "end"
        elif isinstance(event, h2.events.ConnectionTerminated):
            end = f"goaway {int(event.error_code)}"
    if len(came) >= wanted and not ending and end is None:
        connection.end_stream(stream)
        ending = True
link.close()
print(json.dumps({"headers": answer, "came": came[:wanted].hex(), "end": end}))
