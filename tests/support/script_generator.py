"""Draw small training scripts whose activation is written in many ways, and run what they compute.

Each script comes with the truth: probes, which are expressions that have a known value for slope s
(the forward, the gradient, an eager copy), and whether its constants agree. ``measured`` runs them
without torch: tensors are numbers, and a kernel is a function.
"""

import builtins
import random
import re
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from trainer.script.source.packing import pack

X = -2.0
SLOPE = 0.5
STALE = 0.4  # of a backward that was not changed with its forward

NAMES = ("NEGATIVE_SLOPE", "LEAKY_SLOPE", "MLP_LEAKY_SLOPE", "LRELU_SLOPE", "MLP_NEG_SLOPE")
FORWARDS = (
    "return F.leaky_relu(h, {s}).square()",
    "return F.leaky_relu(h, negative_slope={s}) ** 2",
    "return torch.square(F.leaky_relu(h, {s}))",
    "return torch.nn.functional.leaky_relu(h.float(), {s}).to(h.dtype).pow(2)",
    "a = F.leaky_relu(h, {s})\nreturn a * a",
    "a = F.leaky_relu(h, negative_slope = {s})\na = a.square()\nreturn a",
    "h = torch.where(h > 0, h, {s} * h)\nreturn h.square()",
    "return torch.where(h > 0, h * h, ({s}) ** 2 * h * h)",
    "return torch.where(h < 0, h * {s}, h).pow(2)",
    "mask = h >= 0\nreturn torch.where(mask, 1.0, ({s}) ** 2) * h * h",
    "if flag:\n    a = F.leaky_relu(h, {s})\nelse:\n    a = F.gelu(h)\nreturn a.square()",
    "def inner(t):\n    return F.leaky_relu(t, {s})\nreturn inner(h).square()",
)
BACKWARDS = (
    "return go * torch.where(h > 0, 2 * h, 2 * ({s}) ** 2 * h)",
    "return 2 * go * torch.where(h > 0, h, ({s}) ** 2 * h)",
    "return go * torch.where(h > 0, 2.0, 2.0 * {s} * {s}) * h",
    "a = F.leaky_relu(h, {s})\nd = torch.where(h > 0, 1.0, {s})\nreturn 2.0 * go * a * d",
    "return torch.where(h > 0, 2.0 * h, {c} * h) * go",
)
KERNEL = """
c0 = tl.where(pre > 0, pre, {s} * pre)
c0 = c0 * c0
c1 = 2 * go * tl.where(pre > 0, pre, {b} * pre)
return c0, c1
"""
COMPILED = """def kernel(pre, go):
    names = {"tl": tl}
    exec(textwrap.dedent(SRC), names)
    return names["kernel"](pre, go)"""
CUDA = """
extern "C" __global__ void act(float* out, float* grad, const float* in, int n) {{
  float v = in[blockIdx.x]; // leaky, squared
  float y = v > 0.0f ? v : {s}f * v;
  float d = v > 0.0f ? 2.0f * v : {c}f * v;
  out[blockIdx.x] = y * y;
  grad[blockIdx.x] *= d;
}}
"""
UNKNOWN = (
    "return torch.where(h > 0, h, self_slope(h) * h).square()",
    "return F.leaky_relu(h, SLOPES[0]).square()",
    "return F.prelu(h, weight).square()",
    "return (F.relu(h) - {s} * F.relu(-h)).square()",
    "return fused_leaky_relu_sq(h)",
)
UNKNOWN_CUDA = 'SRC = """\nfloat y = fmaxf(v, {s}f * v); // leaky\nout[i] = y * y;\n"""'
DECOYS = (
    '"""The activation is F.leaky_relu(x, 0.1).square() of another paper."""',
    "# once: F.leaky_relu(h, 0.9).square()",
    "print('activation: leaky_relu(0.5)^2')",
    "def scores(q):\n    q = F.leaky_relu(q, 0.2)\n    return torch.softmax(q + 1)",
    "def positive(w):\n    return torch.where(w > 0, 1.0, 0.0)",
    "def absolute(w):\n    return torch.where(w > 0, w, -w)",
    "def hinge(w):\n    return F.relu(w - 1)",
    "betas = (0.5, 0.25)",
)
PACKING = (
    "import lzma as L,base64 as B\n"
    'exec(L.decompress(B.b85decode("PAYLOAD"),format=L.FORMAT_RAW,'
    'filters=[{"id":L.FILTER_LZMA2}]))\n'
)


@dataclass(frozen=True, slots=True)
class Generated:
    """``text`` is the script as a user has it, ``plain`` what runs.

    ``probes`` are expressions by what each must be for slope s. ``asked`` are texts of the lines
    that a draft has to ask about; where there are none it has to set every constant.
    """

    text: str
    plain: str
    probes: Mapping[str, Callable[[float], float]]
    asked: tuple[str, ...]
    variable: str | None


def generated(seed: int) -> Generated:
    """One script."""
    draw = random.Random(seed)
    quote, variable = draw.choice("'\""), None
    how = draw.choice(("inline", "inline", "constant", "attribute", "default", "variable"))
    parts = [_imports(draw)]
    slope = {"constant": "SLOPE", "attribute": "args.slope", "default": "slope"}.get(how, "0.5")
    setting, parameter = "0.5", ""
    if how == "variable":
        variable, slope = draw.choice(NAMES), "args.slope"
        setting = _read(draw, variable, quote)
    parts += [f"SLOPE = {setting}"] if how == "constant" else []
    has_attribute = slope == "args.slope"
    parts.append(_hyperparameters(draw, quote, f"slope = {setting}" if has_attribute else ""))
    parameter = ", slope=0.5" if how == "default" else ""
    numbers = {"s": slope, "c": f"2 * {slope} ** 2" if slope != "0.5" else "0.5", "b": "0.25"}
    forward = draw.choice(FORWARDS)
    parts.append(_function(f"mlp(h, flag=True{parameter})", forward.format(**numbers)))
    probes: dict[str, Callable[[float], float]] = {f"mlp({X})": _square}
    asked: list[str] = []
    if draw.random() < 0.5:
        copy = draw.choice(FORWARDS)
        parts.append(_function(f"eager(h, flag=True{parameter})", copy.format(**numbers)))
        probes[f"eager({X})"] = _square
    kind = draw.choice(("none", "none", "backward", "kernel", "string", "cuda", "unknown"))
    wrong = kind in ("backward", "kernel", "cuda") and draw.random() < 0.3
    inside = {"s": "0.5", "b": "0.16" if wrong else "0.25", "c": "0.32" if wrong else "0.5"}
    if kind == "backward":
        text = draw.choice(BACKWARDS)
        given = {"s": STALE, "c": 2 * STALE**2} if wrong else numbers
        parts.append(_function(f"backward(h, go=1.0{parameter})", text.format(**given)))
        probes[f"backward({X})"] = _gradient
        asked += ["torch.where(h > 0"] if wrong else []
    elif kind == "kernel":
        body = _function("kernel(pre, go)", KERNEL.format(**inside))
        parts.append(f"@triton.jit\n{body}")
        probes |= {f"kernel({X}, 1.0)[0]": _square, f"kernel({X}, 1.0)[1]": _gradient}
        asked += ["tl.where(pre > 0, pre, 0.16"] if wrong else []
    elif kind == "string":
        body = textwrap.indent(_function("kernel(pre, go)", KERNEL.format(**inside)), "    ")
        parts.append(f"SRC = '''\n{body}\n'''\n\n\n{COMPILED}")
        probes |= {f"kernel({X}, 1.0)[0]": _square, f"kernel({X}, 1.0)[1]": _gradient}
    elif kind == "cuda":
        parts.append(f"SRC = r'''{CUDA.format(**inside)}'''")
        probes |= {f"c(SRC, 'y', {X}) ** 2": _square, f"c(SRC, 'd', {X})": _gradient}
        asked += ["2.0f * v : 0.32f"] if wrong else []
    elif kind == "unknown":
        text = draw.choice(UNKNOWN)
        parts.append(_function("other(h)", text.format(**inside)))
        asked.append(text.format(**inside).partition("\n")[0][7:30])
        if draw.random() < 0.3:
            parts.append(UNKNOWN_CUDA.format(**inside))
            asked.append("fmaxf(v")
    parts[3:3] = draw.sample(DECOYS, 3)
    plain = _styled(draw, "\n\n\n".join(parts)) + "\n"
    text = pack(plain, PACKING) if draw.random() < 0.2 else plain
    return Generated(text, plain, probes, tuple(asked), variable)


def measured(source: str, probe: str, variables: Mapping[str, str]) -> float:
    """What an expression is in a script, where every tensor is a number."""
    environ = dict(variables)
    functional = SimpleNamespace(leaky_relu=_leaky, relu=lambda x: max(x, 0.0), gelu=lambda x: x)
    modules = {
        "torch": SimpleNamespace(
            where=_where,
            square=lambda x: x * x,
            softmax=lambda x: x,
            nn=SimpleNamespace(functional=functional),
        ),
        "triton": SimpleNamespace(
            jit=lambda function: function, language=SimpleNamespace(where=_where)
        ),
        "os": SimpleNamespace(environ=environ, getenv=environ.get),
    }

    def importing(name: str, *args: Any) -> Any:
        return modules.get(name.partition(".")[0]) or builtins.__import__(name, *args)

    names: dict[str, Any] = {"__builtins__": {**vars(builtins), "__import__": importing}}
    names |= {"print": lambda *_: None, "c": _of_c, "Number": _Number}
    exec(compile(source, "script", "exec"), names)
    return float(eval(re.sub(r"\((-2\.0)", r"(Number(\1)", probe), names))


class _Number(float):
    """A tensor of one element."""

    dtype = float

    def square(self) -> "_Number":
        return _Number(self * self)

    def pow(self, exponent: int) -> "_Number":
        return _Number(self**exponent)

    def to(self, _: object) -> "_Number":
        return self

    def float(self) -> "_Number":
        return self


def _where(condition: bool, yes: float, no: float) -> _Number:
    return _Number(yes if condition else no)


def _leaky(x: float, negative_slope: float = 0.01) -> _Number:
    return _Number(x if x > 0 else negative_slope * x)


def _of_c(source: str, name: str, v: float) -> float:
    """The conditional that a line of C gives to ``name``."""
    match = re.search(rf"float {name} = v > 0\.0f \? .* : (.*);", source)
    assert match
    return float(eval(re.sub(r"(?<=[\d.])f\b", "", match[1]), {"v": v}))


def _square(slope: float) -> float:
    return (slope * X) ** 2


def _gradient(slope: float) -> float:
    return 2 * slope**2 * X


def _imports(draw: random.Random) -> str:
    lines = ["import os", "import textwrap", "import torch", "import triton"]
    lines += ["import torch.nn.functional as F", "import triton.language as tl"]
    reads = draw.choice(("", "from os import environ", "from os import getenv", HELPER))
    return "\n".join([*lines, reads])


HELPER = "def env(name, default):\n    return os.environ.get(name, default)"


def _read(draw: random.Random, name: str, quote: str) -> str:
    get = draw.choice(("os.environ.get", "os.getenv"))
    default = draw.choice(("0.5", f"{quote}0.5{quote}", f"{quote}.5{quote}", "str(0.5)"))
    return f"float({get}({quote}{name}{quote}, {default}))"


def _hyperparameters(draw: random.Random, quote: str, slope: str) -> str:
    q = quote
    lines = [
        f"seed = int(os.environ.get({q}SEED{q}, 1337))",
        f"data_path = os.environ.get({q}DATA_PATH{q}, {q}./data/some-text{q})",
        f"iterations = int(os.environ.get({q}ITERATIONS{q}, 20000))",
        f"vocab_size = int(os.getenv({q}VOCAB_SIZE{q}, {q}512{q}))",
        f"cap = float(os.environ.get({q}MAX_WALLCLOCK_SECONDS{q}, 600.0))",
        *([slope] if slope else []),
    ]
    draw.shuffle(lines)
    body = "\n".join(f"    {line}" for line in lines)
    log = (
        "def log(step, val_loss, val_bpb):\n"
        f"    print(f{q}final_int6_roundtrip_exact val_loss:{{val_loss:.8f}} "
        f"val_bpb:{{val_bpb:.8f}}{q})"
    )
    return f"class Hyperparameters:\n{body}\n\n\nargs = Hyperparameters()\n\n\n{log}"


def _function(head: str, body: str) -> str:
    return f"def {head}:\n" + textwrap.indent(body.strip("\n"), "    ")


def _styled(draw: random.Random, text: str) -> str:
    """With another indentation, and blank lines closed up."""
    if draw.random() < 0.3:
        text = re.sub(r"^( {4})+", lambda m: "  " * (len(m[0]) // 4), text, flags=re.MULTILINE)
    if draw.random() < 0.3:
        text = re.sub(r"\n{2,}", "\n", text)
    return text
