"""``python -m sweep.preflight``: the table of docs/preflight.md."""

from sweep.preflight.checks import markdown

if __name__ == "__main__":
    print(markdown(), end="")
