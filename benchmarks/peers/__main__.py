"""``python -m benchmarks.peers [PEER...]`` makes the environments of these peers (all without a name)."""

import argparse
import sys

from benchmarks.peers import PEERS, Unavailable
from benchmarks.peers.environments import ensure


def main() -> int:
    """Says of each where it is, or why it is not."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.peers")
    parser.add_argument("peer", nargs="*", metavar="PEER", help=f"of {', '.join(PEERS)} (default: all)")
    names = parser.parse_args().peer or list(PEERS)
    if unknown := [name for name in names if name not in PEERS]:
        parser.error(f"unknown peer {unknown[0]!r}; there are {', '.join(PEERS)}")
    missing = False
    for name in names:
        try:
            print(f"{name}: {ensure(name)}")
        except Unavailable as reason:
            missing = True
            print(f"{name}: not to be had here: {reason}")
    return int(missing)


if __name__ == "__main__":
    sys.exit(main())
