"""A web server for tests that serves one file and has troubles first.

usage: http_server.py FILE WAY...
Each connection is served in the next WAY, all further ones in the last: "down" (an error of the server), "torn" (600 bytes,
then a reset), "cut" (half the file, then a reset), "whole". Prints "port N" once it listens, on a port of the kernel's choosing.
"""
import contextlib
import socket
import struct
import sys

with open(sys.argv[1], "rb") as file:
    body = file.read()
ways = sys.argv[2:]
listener = socket.create_server(("127.0.0.1", 0))
print("port", listener.getsockname()[1], flush=True)
while True:
    client, _ = listener.accept()
    way = ways.pop(0) if len(ways) > 1 else ways[0]
    length = {"torn": 600, "cut": len(body) // 2}.get(way, len(body))
    with client, contextlib.suppress(OSError):
        request = b""
        while b"\r\n\r\n" not in request and (part := client.recv(4096)):
            request += part
        if way == "down":
            client.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
            continue
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        client.sendall(head.encode() + body[:length])
        if length < len(body):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
