"""``python -m benchmarks.crowd.pulse URL``: asks for ``/api/health`` until its stdin ends, and then writes the
milliseconds of each answer as JSON. It does nothing else, so that it measures nobody but the server.

In turn it asks a server that does nothing, in a process of that one's own: what that takes is the machine's doing.
"""

import asyncio
import http.client
import json
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

EVERY_S = 0.1
NOTHING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"


def main() -> int:
    at = urlsplit(sys.argv[1])
    is_over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    answers_ms: dict[str, list[float]] = {"server": [], "nothing": []}
    command = [sys.executable, "-m", "benchmarks.crowd.pulse"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as idle:
        assert idle.stdout
        port = int(idle.stdout.readline())
        connections = {
            "server": http.client.HTTPConnection(at.hostname or "", at.port, timeout=60),
            "nothing": http.client.HTTPConnection("127.0.0.1", port, timeout=60),
        }
        while not is_over.wait(EVERY_S):
            for name, connection in connections.items():
                answers_ms[name].append(_ask(connection))
        idle.kill()
    json.dump(answers_ms, sys.stdout)
    return 0


def _ask(connection: http.client.HTTPConnection) -> float:
    """Milliseconds of one answer."""
    started = time.perf_counter()
    connection.request("GET", "/api/health")
    answer = connection.getresponse()
    answer.read()
    if answer.status != 200:
        raise RuntimeError(f"/api/health: {answer.status}")
    return 1e3 * (time.perf_counter() - started)


async def do_nothing() -> None:
    """Answers whatever it is asked, and prints its port."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while await reader.readline():
            while (await reader.readline()).strip():
                pass
            writer.write(NOTHING)
            await writer.drain()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    sys.exit(main() if len(sys.argv) > 1 else asyncio.run(do_nothing()))
