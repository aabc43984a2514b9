"""``python -m pagoda`` is ``pagoda``."""

import sys

if __name__ == "__main__":
    try:
        from pagoda.pipeline.cli import main
    except ModuleNotFoundError as error:
        if str(error.name).startswith("pagoda"):
            raise
        sys.exit(
            f"error: {sys.executable} has no {error.name}, which pagoda needs; activate the "
            "environment first: source .venv/bin/activate"
        )
    main()
