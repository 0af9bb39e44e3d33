"""A connection like that of a train: passes TCP on, slowly.

    slow_proxy.py LISTEN PORT BYTES_PER_SECOND

Whoever connects to the port LISTEN of loopback is connected to PORT. What comes back
takes its time, each connection by itself. Requests of HTTP are printed, a line each.
"""

import asyncio
import sys

CHUNK = 64 << 10


async def pass_requests(reader, writer):
    while chunk := await reader.read(CHUNK):
        for line in chunk.split(b"\r\n"):
            if line.endswith(b" HTTP/1.1"):
                print(line.decode(), flush=True)
        writer.write(chunk)
        await writer.drain()
    writer.close()


async def pass_answers(reader, writer, rate):
    while chunk := await reader.read(CHUNK):
        writer.write(chunk)
        await writer.drain()
        await asyncio.sleep(len(chunk) / rate)
    writer.close()


async def main(listen, port, rate):
    async def connected(reader, writer):
        try:
            from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(
                pass_requests(reader, to_server), pass_answers(from_server, writer, rate)
            )
        except ConnectionError:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", listen)
    await server.serve_forever()


asyncio.run(main(*map(int, sys.argv[1:])))
