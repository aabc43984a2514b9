"""``python -m pagoda`` is ``pagoda``."""

from pagoda.cli import main

if __name__ == "__main__":
    main()
