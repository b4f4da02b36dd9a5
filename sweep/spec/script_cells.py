"""Check the cells of a sweep over a script: each axis reaches the script, and no two run alike."""

import ast
from collections.abc import Iterable, Mapping

from sweep.spec.sweep_file import SweepSpec
from trainer.config.config_errors import ConfigError, did_you_mean
from trainer.config.script import Script
from trainer.contract import ScriptSpec, canonical_json
from trainer.script.patching import render
from trainer.script.placeholders import placeholders, reserved
from trainer.script.source.activation_sites import mismatches, sites
from trainer.script.source.site import TOLERANCE, Site
from trainer.script.source.syntax import parse_script
from trainer.script.source.variables import variables_read


def check_script_cells(cells: Mapping[str, ScriptSpec], sweep: SweepSpec) -> None:
    """Nothing where all is well; ``cells`` by name. A ConfigError says which axis goes nowhere."""
    if not cells:
        return
    where = f"sweep {sweep.name}"
    if sweep.dtype is not None:
        raise ConfigError(
            f"{where}: dtype = {sweep.dtype!r}: a script chooses its own. Leave dtype out, or "
            f"set a variable of the script in its recipe."
        )
    for spec in cells.values():
        _check_axes(spec, where)
    seen: dict[str, tuple[str, ScriptSpec]] = {}
    read: set[str] = set()
    for name, spec in cells.items():
        rendered = render(spec)
        files = rendered.sha256
        text = canonical_json([files, spec.activation.label, spec.axes])
        if text not in read:  # once, whatever the seed
            read.add(text)
            for file, source in rendered.code.items():
                _check_text(file, source, spec, rendered.variables, f"{where}: cell {name}")
            _check_variables(rendered.code, spec, where)
        run = [files, dict(rendered.variables), rendered.arguments, spec.replicate]
        other, its = seen.setdefault(canonical_json(run), (name, spec))
        if its is not spec and not _same_function(its, spec):
            raise ConfigError(
                f"{where}: cells {other} and {name} would run the same script with the same "
                f"variables. Something that tells them apart has to reach it: "
                f"{{slope}}, {{neg_beta}} or {{activation}} in env, arguments or a patch of recipe "
                f"{spec.recipe_name}, or a patch with only = [...]."
            )


def _check_axes(spec: ScriptSpec, where: str) -> None:
    script, kind = spec.recipe.script, spec.parsed_budget.kind
    taken = reserved(spec.axes)
    if taken:
        raise ConfigError(
            f"{where}: grid.set.{taken[0]}: {{{taken[0]}}} is a placeholder already. Call the axis "
            f"something else."
        )
    used = set(_used(script, kind))
    axes = {axis: f"grid.set.{axis}" for axis in spec.axes}
    for name, what in {"seed": "seeds", kind: "budgets", **axes}.items():
        if name not in used:
            table = f"{kind}_env, env" if name == kind else "env"
            raise ConfigError(
                f"{where}: {what}: nothing in recipe {spec.recipe_name} uses {{{name}}}, so every "
                f"value of it would run the same. Put it into {table}, arguments or a patch of "
                f"[script]."
            )


def _check_variables(code: Mapping[str, str], spec: ScriptSpec, where: str) -> None:
    """A variable that tells cells apart is read by the script, as far as its text tells."""
    script = spec.recipe.script
    if not script.check_text:
        return
    reads = [read.name for text in code.values() for read in variables_read(ast.parse(text))]
    if None in reads:  # of a computed name: which, is not known
        return
    of_kind = script.steps_env if spec.parsed_budget.kind == "steps" else script.seconds_env
    tells = {"seed", "slope", "neg_beta", "activation", "steps", "seconds", *spec.axes}
    for name, template in {**script.env, **of_kind}.items():
        if tells & set(placeholders(template)) and name not in reads:
            known = sorted({read for read in reads if read is not None})
            raise ConfigError(
                f"{where}: recipe {spec.recipe_name} sets {name} = {template!r}, and the script "
                f"reads no such variable.{did_you_mean(name, known)} It reads: "
                f"{', '.join(known) or 'none'}. check_text = false in [script] runs it as it is."
            )


def _check_text(
    file: str, source: str, spec: ScriptSpec, variables: Mapping[str, str], where: str
) -> None:
    """The patched file is Python, and computes what the cell asks for as far as can be told."""
    parse_script(source, f"{where}: the patched {file}")
    if not spec.recipe.script.check_text:
        return
    wrong = [f"{_said(a)}, but {_said(b)}" for a, b in mismatches(source, variables)]
    beta = spec.neg_beta
    if beta is not None and not wrong:
        wrong = [
            f"the cell asks for β = {beta:.6g}, but {_said(site)}"
            for site in sites(source, variables)
            if site.kind in ("slope", "beta")
            and site.beta is not None
            and abs(site.beta - beta) > TOLERANCE
        ]
    if wrong:
        raise ConfigError(
            f"{where}: the patched {file} does not compute one activation: "
            + "; ".join(wrong[:4])
            + ". The factor of x² for x ≤ 0 is β = s², its derivative has 2·s²: patch every place "
            "(`make draft` lists them), or write check_text = false in [script] to run it "
            "as it is."
        )


def _said(site: Site) -> str:
    return f"line {site.line} has β = {site.beta:.6g} ({site.text.strip()[:80]})"


def _used(script: Script, kind: str) -> Iterable[str]:
    of_kind = script.steps_env if kind == "steps" else script.seconds_env
    texts = [*script.env.values(), *of_kind.values(), *script.arguments]
    return [
        name for text in [*texts, *(p.replace for p in script.patch)] for name in placeholders(text)
    ]


def _same_function(a: ScriptSpec, b: ScriptSpec) -> bool:
    """ReLU² and LeakyReLU² of slope 0, which a script may well run alike: the A/A control."""
    names = {a.activation.name, b.activation.name}
    question = [s.model_dump(exclude={"activation", "recipe"}) for s in (a, b)]
    return (
        names == {"relu2", "leaky_relu2"}
        and a.neg_beta == b.neg_beta
        and question[0] == question[1]
    )
