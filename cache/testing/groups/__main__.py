"""`python -m cache.testing.groups`: the campaign with `--load consistent`."""

import sys

from cache.testing.campaign import main

if __name__ == "__main__":
    sys.exit(main(["--load", "consistent", *sys.argv[1:]]))
