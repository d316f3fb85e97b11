"""One command: `python run.py` makes sample tables and a model if there are none, then runs queue, API and worker.

Stops all of it on Ctrl-C. `python run.py --help` lists the options; settings come from the environment or `.env`.
"""

import sys


def main() -> int:
    """Says in words what a machine lacks; otherwise runs the service."""
    if sys.platform == "win32":
        print(
            "run.py: Windows lacks what the queue needs (fork, Redis). Run it inside WSL: https://aka.ms/wsl",
            file=sys.stderr,
        )
        return 1
    if sys.version_info < (3, 11):  # noqa: UP036 - an older Python gets as far as this line
        print("run.py: Python 3.11 or newer is needed; this is %s." % sys.version.split()[0], file=sys.stderr)  # noqa: UP031
        return 1
    try:
        from running.service import run
    except ModuleNotFoundError as missing:
        print(
            f"run.py: the package {missing.name} is not installed for {sys.executable}. `make run` installs what is needed "
            "into .venv and starts; by hand: python3 -m venv .venv && .venv/bin/pip install -r requirements.txt && "
            ".venv/bin/python run.py",
            file=sys.stderr,
        )
        return 1
    return run(sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
