"""Parse a script: its syntax tree, or a ConfigError with the line where it is not Python."""

import ast
import platform
import warnings

from trainer.config.config_errors import ConfigError


def parse_script(text: str, where: str) -> ast.Module:
    """The syntax tree of ``text``; what Python would warn of is none of our business."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return ast.parse(text)
    except SyntaxError as error:
        line, what = "" if error.lineno is None else f", line {error.lineno}", error.msg
    except ValueError as error:
        line, what = "", str(error)
    except (RecursionError, MemoryError):
        line, what = "", "it is nested too deeply"
    version = ".".join(platform.python_version_tuple()[:2])
    raise ConfigError(f"{where}{line}: this is not Python (here {version}): {what}.")
