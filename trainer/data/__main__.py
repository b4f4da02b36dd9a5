"""Is the data that a recipe asks for there, and is it what it says? ``--help`` lists the commands.

python -m trainer.data prepare --recipe NAME-OR-PATH --root data [--set section.key=value]
    [--train-shards N] [--offline]
python -m trainer.data adopt DIR --tokenizer FILE [--dataset NAME]
python -m trainer.data build --text PATH ... --vocab-size N --out DIR
python -m trainer.data inspect DIR
python -m trainer.data decode DIR [--split val] [--start 0] [--count 200]
"""

import argparse
import sys
from collections.abc import Sequence

from trainer.config.config_errors import ConfigError
from trainer.contract import EXIT_BAD_INPUT
from trainer.data.commands import Command, adopt, build, decode, inspect, prepare, stage

EXIT_INTERRUPTED = 130  # 128 + SIGINT, as shells have it

COMMANDS: dict[str, Command] = {
    "prepare": prepare,
    "adopt": adopt,
    "build": build,
    "inspect": inspect,
    "decode": decode,
    "stage": stage,
}


def main(argv: Sequence[str] | None = None) -> int:
    """0 if it was done, 2 if it cannot be (standard error says why), 130 after Ctrl-C."""
    options = _parser().parse_args(argv)
    try:
        said = COMMANDS[options.command].run(options)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    except OSError as error:
        print(f"{error}. Name a folder and files that can be used.", file=sys.stderr)
        return EXIT_BAD_INPUT
    except KeyboardInterrupt:
        print("Interrupted. Run it again to go on.", file=sys.stderr)
        return EXIT_INTERRUPTED
    print(said)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m trainer.data")
    subparsers = parser.add_subparsers(dest="command", required=True)
    for command in COMMANDS.values():
        command.add_command(subparsers)
    return parser


if __name__ == "__main__":
    sys.exit(main())
