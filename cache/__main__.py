"""`python -m cache` is the command line, like the console script `cache`."""

from cache.cli import main

if __name__ == "__main__":
    main()
