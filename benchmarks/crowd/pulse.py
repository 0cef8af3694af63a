"""``python -m benchmarks.crowd.pulse URL``: asks for ``/api/health`` until its stdin ends, and then writes the
milliseconds of each answer as JSON. It does nothing else, so that it measures nobody but the server."""

import http.client
import json
import sys
import threading
import time
from urllib.parse import urlsplit

EVERY_S = 0.1


def main() -> int:
    at = urlsplit(sys.argv[1])
    is_over = threading.Event()

    def wait() -> None:
        sys.stdin.read()
        is_over.set()

    threading.Thread(target=wait, daemon=True).start()
    connection = http.client.HTTPConnection(at.hostname or "", at.port, timeout=60)
    answers_ms: list[float] = []
    while not is_over.wait(EVERY_S):
        started = time.perf_counter()
        connection.request("GET", "/api/health")
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"/api/health: {answer.status}")
        answers_ms.append(1e3 * (time.perf_counter() - started))
    json.dump(answers_ms, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
