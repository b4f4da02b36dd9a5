"""``python -m sweep.preflight``: the table of docs/preflight.md."""

from sweep.preflight.table import markdown

if __name__ == "__main__":
    print(markdown(), end="")
