"""Say of a thousand training logs what each would be read as, or why not; none of it is claimed."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from analysis.number_format import DASH, listed
from analysis.published.claim_checks import (
    PUBLISHED_RECIPES,
    Difference,
    data_differences,
    learned_counts,
    recipe_differences,
    refusal,
)
from analysis.published.log_facts import LogFacts, read_log
from analysis.text_table import Summary, TextTable
from trainer.config import Recipe, load_recipe
from trainer.config.config_errors import ConfigError

_ENDINGS = (".log", ".txt")
_SCORES = {
    "pre-quant": ("pre_quant_bpb", 4),
    "post-quant": ("post_quant_bpb", 8),
    "sliding": ("post_quant_sliding_bpb", 8),
    "TTT": ("ttt_bpb", 8),
    "SLOT (illegal)": ("slot_bpb", 8),
}
_NOTHING = [DASH] * (1 + len(_SCORES))
_HEADINGS = ("log", "verdict", "seed", *_SCORES, "read as, or why not")


def log_files(paths: Iterable[Path]) -> list[Path]:
    """The files among ``paths``, and of each folder those below it that end like a log."""
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            logs = sorted(x for x in path.rglob("*") if x.suffix in _ENDINGS and not x.is_dir())
            if not logs:
                raise ConfigError(f"{path}: no file below it ends in {' or '.join(_ENDINGS)}.")
            found += logs
        else:
            found.append(path)
    return found


def verdicts(paths: Iterable[Path], accept: Sequence[str] = ()) -> Summary:
    """One line per log, in order; a log that cannot be read is a line, too."""
    recipes = {name: load_recipe(name) for name in PUBLISHED_RECIPES}
    lines = [_verdict(path, recipes, accept) for path in paths]
    counts = {verdict: sum(line[1] == verdict for line in lines) for verdict in _MEANINGS}
    sentences = [f"{counts[name]} {name}: {meaning}" for name, meaning in _MEANINGS.items()]
    table = TextTable("What would be read", _HEADINGS, tuple(lines), ends_in_words=True)
    return Summary("import", (table,), tuple(sentences))


_MEANINGS = {
    "read": "a run of a published recipe, once its activation is claimed.",
    "other": "its numbers hold, and it is no run of a published recipe as it stands.",
    "refused": "a number of it would be wrong, or could be.",
}


def _verdict(path: Path, recipes: Mapping[str, Recipe], accept: Sequence[str]) -> tuple[str, ...]:
    try:
        verdict, *told = _told(read_log(path, accept), recipes)
    except ConfigError as error:
        verdict, told = "refused", [*_NOTHING, str(error).removeprefix(f"{path}").lstrip(":, ")]
    except Exception as error:  # a fault of ours may not end the other thousand
        verdict, told = "refused", [*_NOTHING, f"{type(error).__name__}: {error}: our own fault"]
    # On one line, and printable whatever the file is called.
    return tuple(_printable(text) for text in (str(path), verdict, *told))


def _told(facts: LogFacts, recipes: Mapping[str, Recipe]) -> tuple[str, ...]:
    """Verdict, seed, scores, and what it is."""
    for fault in data_differences(facts, next(iter(recipes.values())).data.dataset):
        raise refusal(facts, fault)
    verdict, what = _recipe_of(facts, recipes)
    scores = [_score(facts.row[column], places) for column, places in _SCORES.values()]
    return (verdict, str(facts.row["seed"]), *scores, what)


def _printable(text: str) -> str:
    return " ".join(text.encode("utf-8", "backslashreplace").decode().split())


def _recipe_of(facts: LogFacts, recipes: Mapping[str, Recipe]) -> tuple[str, str]:
    """The recipe whose configuration the log has, or the nearest one and what differs."""
    found = {name: _differences(facts, recipe, name) for name, recipe in recipes.items()}
    name = min(found, key=lambda name: len(found[name]))
    if found[name]:
        return "other", f"nearest is {name}; {'; '.join(one.why for one in found[name])}"
    counts = learned_counts(recipes[name], name)
    learned = [who for who, count in counts.items() if count == facts.row["num_params"]]
    named = sorted({one.name for one in facts.named if one.name})
    says = f", names {listed(named)}" if named else ""
    looked = f", accepted: {', '.join(map(repr, facts.accepted))}" if facts.accepted else ""
    return "read", f"{name}, {learned[0]}{says}{looked}"


def _differences(facts: LogFacts, recipe: Recipe, name: str) -> list[Difference]:
    found = list(recipe_differences(facts, recipe, name))
    counts = learned_counts(recipe, name)
    if facts.row["num_params"] not in counts.values():
        why = f"{facts.row['num_params']:,} parameters, {name} has {counts['no learned β']:,}"
        found.append(Difference(facts.lines["params"], facts.texts["params"], why))
    return found


def _score(value: float | None, places: int) -> str:
    return DASH if value is None else f"{value:.{places}f}"
