"""``[script]``: a recipe that names a training script of the user's own, and how it is read.

Values of ``env``, ``arguments`` and ``replace`` may name ``{seed}``, ``{slope}``, ``{neg_beta}``,
``{activation}``, ``{seconds}``, ``{steps}``, ``{data_dir}``, ``{tokenizer}``, ``{gpus}`` and the
axes of the sweep; ``{{seed}}`` is the text "{seed}" itself. docs/scripts.md explains each key.
"""

import hashlib
import re
from pathlib import PurePath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PositiveFloat, PositiveInt, model_validator

from trainer.config.config_errors import StrictModel, require
from trainer.config.data import DatasetName

STAGES = ("pre_quant", "post_quant", "sliding", "ttt", "slot")
GROUPS = {
    "seed": "the seed",
    "dataset": "name of the data set's folder",
    "num_params": "parameters",
    "world_size": "ranks",
    "val_tokens": "validation targets",
    "batch_tokens": "training tokens of a step",
    "steps": "steps taken, in a line of the end",
    "train_s": "training time in seconds",
    "train_ms": "training time in milliseconds",
    "step_ms": "time of a step in milliseconds, which is no mean so far",
    "model_bytes": "size of the compressed model",
    "code_bytes": "size of the code",
    "artifact_bytes": "their sum",
    "peak_memory_mib": "peak memory in MiB",
    "step": "step of a curve",
    "train_loss": "training loss of that step, in nats per token",
    "val_loss": "validation loss at that step",
    "val_bpb": "validation bits per byte at that step",
}
"""Named groups that a pattern of ``[script.read] lines`` may have, and what each means."""


def _regex(text: str) -> str:
    try:
        re.compile(text)
    except re.error as error:
        raise ValueError(f"{text!r} is no regular expression: {error}.") from None
    return text


def _file_name(text: str) -> str:
    require(
        PurePath(text).name == text and text not in ("", ".", ".."),
        f"{text!r} is a path; give the file's name alone.",
    )
    return text


KEPT_BESIDE = ("script.diff", "packing.txt")
"""Files that are kept beside those of a script, so that none of its own may be called so."""
_CURVE = {"step", "train_loss", "val_loss", "val_bpb"}

Regex = Annotated[str, AfterValidator(_regex)]
FileName = Annotated[str, AfterValidator(_file_name)]
Names = Annotated[tuple[str, ...], Field(strict=False)]
Regexes = Annotated[tuple[Regex, ...], Field(strict=False)]
Variables = dict[Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")], str]


class Patch(StrictModel):
    """``find`` (a text, or with ``regex`` a regular expression) becomes ``replace``.

    It must match at ``count`` places of ``file`` (default: the script). ``only`` names the
    activations that it is made for; absent, it is made for all.
    """

    find: Annotated[str, Field(min_length=1)]
    replace: str
    count: PositiveInt
    regex: bool = False
    file: str | None = None
    only: Names | None = None

    @model_validator(mode="after")
    def _is_regex(self) -> "Patch":
        if self.regex:
            _regex(self.find)
        return self


class StageRule(StrictModel):
    """Where a stage is printed, and the windows it is scored in.

    ``label`` is what stands before ``val_loss:X val_bpb:Y``; ``pattern`` has a group ``bpb`` and
    may have ``loss`` and ``eval_ms``. Without ``window`` and ``stride`` the score is kept, and
    never subtracted.
    """

    label: Annotated[str, Field(min_length=1)] | None = None
    pattern: Regex | None = None
    window: PositiveInt | None = None
    stride: PositiveInt | None = None

    @model_validator(mode="after")
    def _means_something(self) -> "StageRule":
        require(
            (self.label is None) != (self.pattern is None),
            "give label or pattern: one of them, and not both.",
        )
        if self.pattern is not None:
            groups = set(re.compile(self.pattern).groupindex)
            require(
                "bpb" in groups and groups <= {"bpb", "loss", "eval_ms"},
                f"pattern {self.pattern!r} has the groups {sorted(groups)}; it needs (?P<bpb>…), "
                f"and may have (?P<loss>…) and (?P<eval_ms>…).",
            )
        require(
            (self.window is None) == (self.stride is None),
            "window and stride belong together: give both, or leave both out where the script "
            "does not say them.",
        )
        if self.window is not None and self.stride is not None:
            require(
                self.stride <= self.window,
                f"stride {self.stride} is more than window {self.window}.",
            )
        return self


class SlotRule(StageRule):
    """``slot_legal``: whether its shifts are fitted on targets that are already scored."""

    slot_legal: bool


class Read(StrictModel):
    """What is read of what the script prints: stages, and ``lines`` with named groups.

    ``forms`` switches on the lines that most scripts of a field share.
    """

    forms: Annotated[tuple[Literal["parameter-golf"], ...], Field(strict=False)] = ()
    lines: Regexes = ()
    pre_quant: StageRule | None = None
    post_quant: StageRule | None = None
    sliding: StageRule | None = None
    ttt: StageRule | None = None
    slot: SlotRule | None = None

    @property
    def stages(self) -> dict[str, StageRule]:
        """The rules that there are, by stage."""
        rules = {name: getattr(self, name) for name in STAGES}
        return {name: rule for name, rule in rules.items() if rule is not None}

    @model_validator(mode="after")
    def _reads_something(self) -> "Read":
        require(
            bool(self.stages),
            f"no metric at all: name the label of at least one stage ({', '.join(STAGES)}).",
        )
        for pattern in self.lines:
            unknown = sorted(set(re.compile(pattern).groupindex) - set(GROUPS))
            require(
                not unknown and re.compile(pattern).groupindex != {},
                f"lines: {pattern!r} has the groups {unknown or 'none'}; known are "
                f"{', '.join(GROUPS)}.",
            )
            curve = _CURVE & set(re.compile(pattern).groupindex)
            require(
                not curve or ("step" in curve and len(curve) > 1),
                f"lines: {pattern!r} has {', '.join(sorted(curve))}: a curve needs (?P<step>…) and "
                f"a loss or score in one line.",
            )
        for name in ("pre_quant", "post_quant"):
            rule = self.stages.get(name)
            require(
                rule is None or rule.window == rule.stride,
                f"{name}: its stride is not its window, so it is a sliding score; {name} is one of "
                f"contiguous windows. Name it under sliding.",
            )
        require(
            self.sliding is None
            or self.sliding.window is None
            or self.sliding.window != self.sliding.stride,
            "sliding: its stride is its window, so it is a contiguous score. Name it under "
            "post_quant.",
        )
        return self


class Progress(StrictModel):
    """What counts as a sign of life: ``line`` is a regular expression (default: any line).

    After a line that matches one of ``quiet_after`` the script may be silent for as long as the
    sweep's ``limits.slow_phase_s`` allows; else for ``limits.no_progress_s``.
    """

    line: Regex | None = None
    quiet_after: Regexes = ()


class Script(StrictModel):
    """``path`` is relative to the recipe's file. ``files`` are what it imports or reads beside it.

    ``steps_env`` and ``seconds_env`` are for budgets of that kind alone. ``activation_names`` says
    what ``{activation}`` is, by label (leaky_relu2-s0.5) or name (leaky_relu2). ``artifact_file``
    is the compressed model that it leaves; it is weighed and kept. ``check_text``: a sweep is
    refused whose patched script computes another slope than its cell asks for, in its backward
    another than in its forward, or reads no variable that tells its cells apart, as far as its
    text shows.
    """

    path: str
    files: Names = ()
    launch: Literal["torchrun", "python"] = "torchrun"
    arguments: Names = ()
    env: Variables = Field(default_factory=dict)
    steps_env: Variables = Field(default_factory=dict)
    seconds_env: Variables = Field(default_factory=dict)
    activation_names: dict[str, str] = Field(default_factory=dict)
    artifact_file: FileName | None = None
    check_text: bool = True
    patch: Annotated[tuple[Patch, ...], Field(strict=False)] = ()
    progress: Progress = Progress()
    read: Read


class ScriptData(StrictModel):
    """The data set that ``{data_dir}`` is; ``vocab_size`` is that of its tokenizer."""

    dataset: DatasetName
    vocab_size: PositiveInt


class ScriptArtifact(StrictModel):
    """The limits of the field, which change nothing but the columns that say it kept them."""

    cap_bytes: PositiveInt = 16_000_000
    train_cap_s: PositiveFloat = 600.0
    eval_cap_s: PositiveFloat = 600.0


class ScriptRecipe(StrictModel):
    """A recipe with ``[script]``, and the text of its files by name, the script's first.

    ``packed`` says how the script was packed, None if it was plain text.
    """

    data: ScriptData
    artifact: ScriptArtifact = ScriptArtifact()
    script: Script
    sources: dict[str, str]
    packed: str | None = None

    @property
    def main(self) -> str:
        """The name of the script's file."""
        return PurePath(self.script.path).name

    @property
    def vocab_size(self) -> int:
        return self.data.vocab_size

    def identity(self) -> dict[str, Any]:
        """What of it changes an answer: bytes, never paths."""
        values = self.model_dump(mode="json", exclude_defaults=True, exclude={"sources", "packed"})
        for key in ("path", "files", "progress", "check_text"):
            values["script"].pop(key, None)
        hashes = {
            "" if name == self.main else name: hashlib.sha256(text.encode()).hexdigest()
            for name, text in self.sources.items()
        }
        return values | {"sources": hashes}
