"""The second stage of a screening: its leaders under fresh seeds, in a sweep file of its own.

A screening tries every activation under few seeds; its leaders, and the reference, then run once
more under fresh seeds. The second stage is a sweep of its own, and its own rows alone decide: seeds
that chose the leaders flatter them, so they are not added, and nothing has to be corrected for
having looked (Thall, Simon & Ellenberg 1988 add them, and pay with a critical value of its own).
"""

from collections.abc import Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any

import tomli_w

from analysis.number_format import counted, listed
from analysis.rows.read import succeeded
from analysis.rows.scoring import stage_title
from analysis.stats.compare import compare
from analysis.study import Study, read_study
from sweep.spec import sweep_file
from sweep.store.files import open_files
from trainer.config.config_errors import ConfigError, find_config, read_toml

SUFFIX = "-stage2"
MOST_SEEDS = 10_000


def leaders(study: Study, *, keep: int) -> list[str]:
    """The keys of the ``keep`` activations with the lowest paired difference, best first.

    In every setting of ``study``, at the primary stage; of several settings, all their leaders, so
    that there may be more than ``keep``. The reference is not among them, nor is what a seed of
    diverged; two names of one function are one. ConfigError where fewer can be ranked.
    """
    ranked = compare(study, study.primary).sort_values(["difference", "key"])
    chosen: list[str] = []
    for setting in study.settings:
        here = [str(key) for key in ranked.loc[ranked["setting"] == setting, "key"]]
        if len(here) < keep:
            raise ConfigError(
                f"keep {keep}: {counted(len(here), 'activation')} can be ranked against"
                f" {study.reference} in {setting} ({listed(here) or 'none'}). Finish the screening,"
                " or keep fewer."
            )
        chosen += [key for key in here[:keep] if key not in chosen]
    return chosen


def fresh_seeds(used: Sequence[int], num: int) -> list[int]:
    """The first ``num`` seeds from 1 on that are not ``used``: a rule, so that none are chosen.

    >>> fresh_seeds([42, 2, 1337], 3)
    [1, 3, 4]
    """
    taken = set(used)
    return list(islice((seed for seed in count(1) if seed not in taken), num))


def second_stage(screening: str, place: str | Path, *, keep: int, seeds: int) -> str:
    """The text of the sweep file of a second stage, after what ``screening`` left in ``place``.

    ``screening`` is the name or path of its sweep file. Everything but activations and seeds is as
    it is there.
    """
    if keep < 1 or seeds < 2:
        raise ConfigError(
            f"--keep {keep} --seeds {seeds}: at least one leader is kept, and it takes two seeds to"
            " know the noise. Give --keep 1 or more and --seeds 2 or more."
        )
    if seeds > MOST_SEEDS:
        raise ConfigError(f"--seeds {seeds}: at most {MOST_SEEDS:,} can be planned.")
    path = find_config(screening, sweep_file.SWEEPS, "sweep")
    first = sweep_file.load_sweep(screening)
    screened = read_study(place)
    succeeded(screened.cells)
    reference = screened.reference
    if reference != first.reference:
        raise ConfigError(
            f"{place}: its reference is {reference}, and {first.reference} in the sweep file of"
            f" {first.name}. `make sweep` writes down what the file says."
        )
    chosen = leaders(screened, keep=keep)
    before = [first, *sweep_file.screenings(first, path.parent)]
    used = [*(seed for sweep in before for seed in sweep.seeds), *map(int, screened.cells["seed"])]
    entries = {
        activation.label: {"name": activation.name, **activation.params}
        for activation in first.expanded_activations()
    }
    changed = [key for key in chosen if key not in entries]
    if changed:
        raise ConfigError(
            f"{listed(changed)}: among the leaders of {first.name}, and no longer in its file,"
            f" {path}. Put back what has been taken out."
        )
    table: dict[str, Any] = read_toml(path)
    table |= {
        "screened_in": first.name,
        "seeds": fresh_seeds(used, seeds),
        "activations": [entries[key] for key in (reference, *chosen)],
    }
    stage = stage_title(screened.cells, screened.primary)
    heading = (
        f"# Second stage of {first.name}: the reference and the {len(chosen)} leaders of its"
        f" screening ({stage}),\n# best first, under seeds that the screening did not use.\n\n"
    )
    return heading + tomli_w.dumps(table)


def write_second_stage(
    screening: str, place: str | Path, *, keep: int, seeds: int, out: str | Path | None = None
) -> Path:
    """Write :func:`second_stage` to ``out``, by default next to the screening's file; its path.

    ConfigError where the file is there already: seeds are chosen once.
    """
    path = find_config(screening, sweep_file.SWEEPS, "sweep")
    target = Path(out) if out is not None else path.with_name(f"{path.stem}{SUFFIX}.toml")
    if target.suffix != ".toml":
        raise ConfigError(f"--out {out}: the name of a sweep file ends in .toml.")
    text = second_stage(screening, place, keep=keep, seeds=seeds)
    if not open_files(target.parent).create(target.name, text.encode()):
        raise ConfigError(
            f"{target} is there already. A second stage is chosen once; --out names another file."
        )
    return target


def second_stage_sentences(study: Study) -> list[str]:
    """What a reader must know of a second stage; nothing for any other sweep.

    ConfigError where there are rows of the screening.
    """
    sweep = study.sweep
    if sweep.screened_in is None:
        return []
    if sweep.screened_in in study.cells["sweep"].dropna().unique():
        raise ConfigError(
            f"sweep {sweep.name}: there are rows of its screening, {sweep.screened_in}, among its"
            " own. Seeds that chose the leaders flatter them: leave them in their own folder."
        )
    numbers = sorted(set(compare(study, study.primary)["comparisons"]))
    many = [counted(int(number), "comparison") for number in numbers] or ["no comparison yet"]
    return [
        f"Second stage of {sweep.screened_in}: its own rows alone decide;"
        f" {listed(many)}. The seeds of the screening chose what is compared, and are not added."
    ]
