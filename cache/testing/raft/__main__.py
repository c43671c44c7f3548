"""`python -m cache.testing.raft`: the Raft campaign."""

import sys

from cache.testing.raft.campaign import main

if __name__ == "__main__":
    sys.exit(main())
