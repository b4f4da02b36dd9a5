"""Hold what a script printed against what it was asked: seed, data, budget, ranks, activation."""

from pathlib import Path

from trainer.config.config_errors import ConfigError
from trainer.contract import ScriptSpec
from trainer.script.logs.named_activation import contradiction, named_in_line, plain_name
from trainer.script.logs.read import Reading, Said, first_not_finite


def check_answers(reading: Reading, spec: ScriptSpec, where: str) -> None:
    """Nothing, if the script ran what the cell asks; else a ConfigError with the line."""
    budget, data = spec.parsed_budget, Path(spec.data_dir)
    asked: dict[str, tuple[object, ...]] = {
        "seed": (spec.seed,),
        "dataset": (spec.recipe.data.dataset, data.name, data.resolve().name),
    }
    if spec.recipe.script.launch == "torchrun":
        asked["world_size"] = (spec.ranks,)
    if budget.kind == "steps":
        asked |= {"steps": (budget.value,), "iterations": (budget.value,)}
    else:
        asked["cap_s"] = (budget.value,)
    for name, allowed in asked.items():
        said = reading.values.get(name)
        if said is not None and said.value not in allowed:
            raise _contradicts(where, said, f"its {name} is {_shown(said.value)}", allowed[0])
    _check_end(reading, spec, where)
    _check_activation(reading, spec, where)


def _check_end(reading: Reading, spec: ScriptSpec, where: str) -> None:
    """What ended the training is the cell's budget, as far as the script's steps tell."""
    budget = spec.parsed_budget
    wrong = (
        _other_steps(reading, budget.value)
        if budget.kind == "steps"
        else _less_time(reading, budget.value)
    )
    if wrong is not None:
        raise ConfigError(f"{where}: {wrong}; the cell asks for {budget.value:g} {budget.kind}.")


def _other_steps(reading: Reading, asked: float) -> str | None:
    """Scripts that say step:1/20 score the last step, whatever but divergence has ended them."""
    trained, scored = (
        max((step for step, values in reading.curve.items() if name in values), default=0)
        for name in ("train_loss", "val_loss")
    )
    iterations = reading.last("iterations")
    if trained > asked:
        return f"it trained to step {trained}"
    if iterations is not None and iterations != asked:
        return f"it counts {iterations:g} iterations"
    if reading.number("steps") == asked:
        return None
    is_over = iterations is not None and 0 < scored >= trained
    if is_over and scored < asked and first_not_finite(reading) is None:
        return f"it ended at step {scored} (by a cap of its own, in seconds?)"
    return None


def _less_time(reading: Reading, asked: float) -> str | None:
    iterations, train_ms = reading.last("iterations"), reading.last("train_ms")
    if iterations is None or train_ms is None:
        return None
    if max(reading.curve) < iterations or train_ms >= 1000 * asked:
        return None
    return (
        f"its {iterations:g} iterations were over after {train_ms / 1000:g} s (more of them, in "
        f"seconds_env, let the time end it)"
    )


def _check_activation(reading: Reading, spec: ScriptSpec, where: str) -> None:
    """The script's own name of the activation, which its recipe tells, is as good as ours."""
    activation, names = spec.activation, spec.recipe.script.activation_names
    own = names.get(activation.label, names.get(activation.name))
    named = []
    for said in reading.activations:
        found = named_in_line(said.number, said.text)
        if own is not None and found.name == plain_name(own):
            found = found.called(activation.name.replace("_", ""))
        named.append(found)
    wrong = contradiction(named, activation.name, activation.params)
    if wrong is not None:
        line, what = wrong
        raise _contradicts(
            where, Said(0, line.number, line.text), f"it names {what}", activation.label
        )


def _contradicts(where: str, said: Said, what: str, asked: object) -> ConfigError:
    return ConfigError(
        f"{where}: {said}: {what}, the cell asks for {_shown(asked)}. Does the recipe set it, by a "
        f"variable or a patch, and does the script use that?"
    )


def _shown(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
