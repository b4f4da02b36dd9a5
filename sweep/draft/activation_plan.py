"""Decide what of a script's activation is set by variables, by patches, and what is asked."""

import ast
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sweep.draft.patch_text import DraftPatch, does_not_hold, draft_patches
from sweep.draft.variable_roles import Variable
from trainer.config.script import Patch
from trainer.script.source.activation_sites import sites
from trainer.script.source.site import Site, disagreeing

PROBED_SLOPE = 0.3
_LEAKY = re.compile(r"leaky|lrelu", re.IGNORECASE)


@dataclass(slots=True)
class ActivationPlan:
    """``patches`` and ``variables`` set every constant if nothing is ``open``.

    ``open`` are questions that a person has to answer before any of it may run; ``notes`` are what
    is worth a look. Each begins with its line.
    """

    sites: list[Site]
    patches: list[DraftPatch] = field(default_factory=list)
    variables: dict[str, str] = field(default_factory=dict)
    open: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def num_set(self) -> int:
        """The sites that variables or patches set."""
        patched = {site for patch in self.patches for site in patch.sites}
        return sum(
            (site in patched and site.kind != "relu2") or bool(site.variables & set(self.variables))
            for site in self.sites
        )


def plan_activation(source: str, variables: Mapping[str, Variable]) -> ActivationPlan:
    """What a recipe does about the activation of ``source``."""
    plan = ActivationPlan(sites(source))
    known = [site for site in plan.sites if site.kind in ("slope", "beta")]
    pairs = disagreeing(plan.sites)
    for first, second in pairs:
        plan.open.append(
            f"line {second.line:,} does not fit line {first.line:,}: {_meaning(first)} against "
            f"{_meaning(second)}; which is meant?"
        )
    for site in known:
        if site.beta is not None and site.beta < 0:
            plan.open.append(f"line {site.line:,}: β = {site.beta:g} is no square of a slope")
    _ask_of_others(plan, known, variables)
    _ask_of_conditions(plan, known)
    if not known:
        _without_constants(plan)
        return plan
    _set_variables(plan, source, known)
    constants = [site for site in known if not site.variables]
    plan.patches, left = draft_patches(source, constants)
    for site in left:
        plan.open.append(
            f"line {site.line:,}: every text around {site.text!r} stands elsewhere too: patch it"
        )
    _ask_of_switches(plan, variables)
    if not plan.open:
        patches = [drafted.patch for drafted in plan.patches]
        why = does_not_hold(source, patches, plan.variables, len(known))
        if why is not None:
            plan.open.append(f"line {known[0].line:,}: tried out, the draft does not hold: {why}")
    return plan


def _ask_of_others(
    plan: ActivationPlan, known: Sequence[Site], variables: Mapping[str, Variable]
) -> None:
    """Places that are not understood, ReLU², and LeakyReLU that nothing is seen to square."""
    says_leaky = any(
        v.role == "activation" and v.default is not None and _is_leaky(v)
        for v in variables.values()
    )
    for site in plan.sites:
        shown = f"line {site.line:,}: {site.text[:100]}"
        if site in known:
            continue
        if site.kind == "unknown":
            plan.open.append(f"line {site.line:,} is {_of(site)}: {site.text[:100]}")
        elif site.runs is False:
            plan.notes.append(f"{shown} does not run by default: only if {site.condition}")
        elif site.kind == "relu2" and known:
            target = plan.notes if says_leaky else plan.open
            target.append(f"{shown} is ReLU²: is it what runs, and should it be LeakyReLU²?")
        elif site.kind == "unsquared":
            target = plan.open if not known or _is_alike(site, known) else plan.notes
            target.append(f"{shown} is {site.why}: does it belong to the activation?")


def _ask_of_conditions(plan: ActivationPlan, known: Sequence[Site]) -> None:
    """Constants that run under a condition; and derivatives without a forward."""
    unknown: dict[str, list[str]] = {}
    for site in known:
        if site.runs is False:
            plan.open.append(
                f"line {site.line:,} does not run by default: only if {site.condition}. What runs?"
            )
        elif site.runs is None and site.condition is not None:
            unknown.setdefault(site.condition, []).append(f"{site.line:,}")
    for condition, lines in unknown.items():
        plan.notes.append(f"line {', '.join(lines)}: it runs only if {condition}: does that hold?")
    if known and all(site.backward for site in known) and any(s.scale != 2.0 for s in known):
        plan.open.append(f"line {known[0].line:,} is of a derivative: where is its forward?")


def _is_alike(site: Site, known: Sequence[Site]) -> bool:
    """Whether a constant whose use is not seen is in a backward, or one that the slope gives."""
    if site.value is None or site.backward:
        return True
    betas = [other.beta for other in known if other.beta is not None and other.beta >= 0]
    given = [number for beta in betas for number in (beta**0.5, beta, 2 * beta)]
    return any(abs(site.value - number) < 1e-6 for number in given)


def _of(site: Site) -> str:
    return site.why if site.why.startswith("in ") else f"not understood ({site.why})"


def _without_constants(plan: ActivationPlan) -> None:
    if not plan.sites:
        plan.open.append("line 1: no activation of the family was found: where is it computed?")
    for site in plan.sites:
        if site.kind == "relu2":
            patch = _leaky_instead(site)
            how = "" if patch is None else ", for which a patch is drafted"
            plan.open.append(
                f"line {site.line:,}: {site.text[:100]} is ReLU²: should it become LeakyReLU²{how}?"
            )
            if patch is not None and all(p.patch.find != patch.find for p in plan.patches):
                plan.patches.append(DraftPatch(patch, (site,)))


def _leaky_instead(site: Site) -> Patch | None:
    """``relu(x)`` becomes ``leaky_relu(x, slope)``; None where it is written in another way."""
    try:
        call = ast.parse(site.text, mode="eval").body
    except SyntaxError:
        return None
    if not isinstance(call, ast.Call) or site.backward or len(call.args) != 1:
        return None
    name = ast.unparse(call.func)
    if name not in ("torch.relu", "F.relu", "torch.nn.functional.relu", "relu"):
        return None
    inner = ast.unparse(call.args[0])
    replace = f"torch.nn.functional.leaky_relu({inner}, {{slope}})"
    return Patch(find=site.text, replace=replace, count=1)


def _set_variables(plan: ActivationPlan, source: str, known: Sequence[Site]) -> None:
    """Give each variable the slope, or its square, by what its sites mean when it is changed."""
    for name in sorted({name for site in known for name in site.variables}):
        probed = [
            site for site in sites(source, {name: str(PROBED_SLOPE)}) if name in site.variables
        ]
        lines = ", ".join(f"{site.line:,}" for site in probed)
        betas = {round(site.beta, 9) if site.beta is not None else None for site in probed}
        if betas == {round(PROBED_SLOPE**2, 9)}:
            plan.variables[name] = "{slope}"
        elif betas == {PROBED_SLOPE}:
            plan.variables[name] = "{neg_beta}"
        else:
            plan.open.append(f"line {probed[0].line:,}: {name} is neither s nor s² at {lines}")


def _ask_of_switches(plan: ActivationPlan, variables: Mapping[str, Variable]) -> None:
    """Variables that choose an activation, and slopes that reach no site."""
    for variable in variables.values():
        at = f"line {variable.lines[0]:,}: {variable.name}"
        default = "no default" if variable.default is None else f"default {variable.default!r}"
        if variable.role == "slope" and variable.name not in plan.variables:
            plan.open.append(
                f"{at} ({default}) sounds like a slope, and no site was seen to use it"
            )
        elif variable.role == "activation" and _is_leaky(variable):
            plan.notes.append(f"{at} ({default}) chooses the activation; it keeps its default")
        elif variable.role == "activation":
            plan.open.append(
                f"{at} ({default}) chooses the activation: which value is LeakyReLU²? Set it in "
                f"[script.env]"
            )


def _is_leaky(variable: Variable) -> bool:
    if variable.default in ("1", "True", "true"):
        return bool(_LEAKY.search(variable.name))
    return variable.default is not None and bool(_LEAKY.search(variable.default))


def _meaning(site: Site) -> str:
    if site.beta is None:
        return f"no slope ({site.text[:60]})"
    slope = f"s = {site.beta**0.5:.4g}" if site.beta >= 0 else f"s² = {site.beta:.4g}"
    constant = "" if site.kind == "slope" else f" by {site.value:g} = {site.scale:g}·s²"
    return f"{slope}{constant} ({site.text[:60]})"
