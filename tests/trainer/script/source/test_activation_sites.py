"""The constants of an activation are found however it is written, and what is not known is said."""

import pytest

from trainer.config.config_errors import ConfigError
from trainer.script.source.activation_sites import mismatches, sites

FORWARD = [
    "y = F.leaky_relu(self.fc(x), {s}).square()",
    "y = torch.nn.functional.leaky_relu(x, negative_slope={s}) ** 2",
    "y = torch.square(leaky_relu(x, {s}))",
    "y = F.leaky_relu(x.float(), {s}).to(x.dtype).pow(2)",
    "y = torch.pow(F.leaky_relu(x, {s}), 2)",
    "h = F.leaky_relu(x, {s})\ny = h * h",
    "h = F.leaky_relu(x, {s})\nh = h.square()",
    "h = F.leaky_relu(x, {s})\nh *= h",
    "y = (h := F.leaky_relu(x, {s})) * h",
    "y = torch.where(x > 0, x, {s} * x).square()",
    "m = x < 0\ny = torch.where(m, x * {s}, x) ** 2",
    "y = torch.where(x >= 0, x ** 2, {s} ** 2 * x * x)",
    "y = torch.where(x > 0, 1.0, {s} ** 2) * x * x",
    "y = x * F.leaky_relu(x, {s} * {s})",
    "y = torch.where(x > 0, x.square(), ({s} * x).square())",
    "h = F.leaky_relu(x, {s})\ny = h.mul(h)",
    "y = F.leaky_relu(x, {s}) * F.leaky_relu(x, {s})",
    "def act(x):\n    return F.leaky_relu(x, {s})\ny = act(x).square()",
    "act = lambda x: F.leaky_relu(x, {s})\ny = act(x) ** 2",
    "act = functools.partial(F.leaky_relu, negative_slope={s})\ny = act(x) ** 2",
    "class M:\n    def __init__(self):\n        self.act = nn.LeakyReLU({s})\n"
    "    def forward(self, x):\n        return self.act(x).square()",
    "class A:\n    def forward(self, x):\n        return F.leaky_relu(x, {s})\n"
    "class M:\n    def __init__(self):\n        self.act = A()\n"
    "    def forward(self, x):\n        return self.act(x).square()",
    "def f(x):\n    if leaky:\n        h = F.leaky_relu(x, {s})\n    else:\n        h = gelu(x)\n"
    "    return h.square()",
    "S = {s}\ny = F.leaky_relu(x, S).square()",
    "class H:\n    s = {s}\nclass M:\n    def __init__(self, slope):\n        self.s = slope\n"
    "    def forward(self, x):\n        return F.leaky_relu(x, self.s).square()\nM(H.s)",
    "def f(x, slope={s}):\n    return F.leaky_relu(x, slope).square()\nf(1)",
    "@triton.jit\ndef k(p, S: tl.constexpr):\n    c = tl.where(p > 0, p, S * p)\n    c = c * c\n"
    "k[(1,)](p, S={s})",
    "SRC = '''\n    def k(x):\n        y = tl.where(x > 0, x, {s} * x)\n        return y * y\n'''",
    "SRC = r'''float y = (v > 0.0f) ? v : {s}f * v; // leaky\nout[i] = y * y;'''",
    "SRC = '''\n#define S {s}f\nout[i] = v > 0 ? v * v : S * v * v; }'''".replace(
        "S {s}", "S 0.09"
    ),
]
BACKWARD = [
    "dx = go * torch.where(x > 0, 2 * x, 2 * {s} ** 2 * x)",
    "dx = 2 * go * torch.where(x > 0, x, {s} ** 2 * x)",
    "g = tl.where(x > 0, 2.0 * x, {c} * x)",
    "g = torch.where(x > 0, 2.0, {c}) * x * go",
    "g = torch.where(x > 0, 2.0 * x, 2 * {s} * {s} * x)",
    "def backward(ctx, go):\n    y = F.leaky_relu(x, {s})\n    d = torch.where(x > 0, 1.0, {s})\n"
    "    return 2 * go * y * d",
    "S = '''float d = v > 0 ? 2.0f * v : {c}f * v; // leaky'''",
    "S = '''float d = v > 0.f ? v : 0.09f * v;\no[i] = 2.0f * g[i] * d; }'''",
]
NOT_UNDERSTOOD = [
    "y = torch.where(x > 0, x, self.alpha * x).square()",
    "y = F.leaky_relu(x, slopes[layer]).square()",
    "y = F.leaky_relu(x).square()",
    "y = F.prelu(x, w).square()",
    "y = torch.where(x > 0, x, torch.tanh(x)).square()",
    "h = F.leaky_relu(x, 0.3)\nh = h + F.leaky_relu(lora(x), 0.3)\ny = h.square()",
    "y = torch.maximum(x, 0.3 * x).square()",
    "y = (F.relu(x) - 0.3 * F.relu(-x)).square()",
    "y = fused_leaky_relu_sq(x)",
    "y = getattr(F, 'leaky_relu')(x, 0.3).square()",
    "SRC = '''float y = fmaxf(v, 0.3f * v); /* leaky */ return y * y;'''",
    "SRC = f'''float y = v > 0 ? v : {s}f * v; return y * y;'''",
    "def f(x, s=0.3):\n    return F.leaky_relu(x, s).square()\nf(x, 0.3); f(x, 0.5)",
]
NOTHING = [
    "'''F.leaky_relu(x, 0.5).square()'''",
    "# F.leaky_relu(x, 0.5).square()",
    "y = torch.where(mask, x, 0.5 * x)\nz = torch.where(n > 0, n, 1.0)\nw = F.relu(x)",
    "print('leaky_relu(0.5) squared')",
    "w = torch.where(x > 0, 1.0, 0.0)\nv = torch.where(x > 0, x, -x)",
]


@pytest.mark.parametrize("text", FORWARD + BACKWARD)
def test_every_constant_is_found_and_means_the_same_factor(text):
    source = text.replace("{s}", "0.3").replace("{c}", "0.18")
    found = sites(source)
    assert found
    for site in found:
        assert site.kind in ("slope", "beta")
        assert site.beta == pytest.approx(0.09)
        assert site.backward == (text in BACKWARD)
        assert site.line == source.count("\n", 0, site.start) + 1


@pytest.mark.parametrize("text", NOT_UNDERSTOOD)
def test_what_is_not_understood_is_said(text):
    kinds = {site.kind for site in sites(text)}
    assert "unknown" in kinds
    assert kinds <= {"unknown", "unsquared"}


@pytest.mark.parametrize("text", NOTHING)
def test_what_only_looks_like_it_is_left_alone(text):
    assert sites(text) == []


@pytest.mark.parametrize("backward", BACKWARD)
@pytest.mark.parametrize("slope", ["0.3", "0.5"])
def test_a_backward_fits_its_forward_or_is_named(backward, slope):
    forward = f"y = F.leaky_relu(x, {slope}).square()\n"
    source = forward + backward.replace("{s}", "0.3").replace("{c}", "0.18")
    pairs = mismatches(source)
    assert bool(pairs) == (slope == "0.5")
    assert all(first.line == 1 for first, _ in pairs)


def test_long_expressions_are_passed_over_or_refused_in_a_sentence():
    text = f"words = {' + '.join(['a'] * 2000)}\ny = F.leaky_relu(x, 0.5).square()\n"
    assert [site.line for site in sites(text)] == [2]
    with pytest.raises(ConfigError, match="too deeply"):
        sites(f"y = F.leaky_relu(x, 0.5) * {' * '.join(['z'] * 2000)}")


def test_a_leaky_forward_with_the_backward_of_relu_is_named():
    source = "def k():\n    y = tl.where(c > 0, c, 0.5 * c)\n    y = y * y\n"
    assert mismatches(source + "    g = 2 * go * tl.where(p > 0, p, 0)\n")


def test_a_variable_is_followed_and_may_be_set():
    source = (
        "import os\nclass H:\n    s = float(os.environ.get('SLOPE', 0.5))\n"
        "class M:\n    def __init__(self, s):\n        self.s = s\n"
        "    def forward(self, x):\n        return F.leaky_relu(x, self.s).square()\n"
        "args = H()\nM(args.s)\ng = go * torch.where(x > 0, 2 * x, 2 * args.s ** 2 * x)\n"
    )
    for given, slope in (({}, 0.5), ({"SLOPE": "0.2"}, 0.2)):
        forward, backward = sites(source, given)
        assert forward.variables == backward.variables == {"SLOPE"}
        assert forward.value == slope
        assert backward.beta == pytest.approx(slope**2)
    assert mismatches(source, {"SLOPE": "0.2"}) == []


@pytest.mark.parametrize(
    ("condition", "runs"),
    [
        ("os.environ.get('ACT', 'leaky') == 'leaky'", True),
        ("os.environ.get('ACT', 'relu2').lower() in ('leaky', 'lrelu')", False),
        ("bool(int(os.environ.get('LEAKY', '1')))", True),
        ("os.environ.get('LEAKY', '0') == '1'", False),
        ("not LEAKY or 2 > 3", False),
        ("x.is_cuda", None),
        ("x.is_cuda and not LEAKY", False),
    ],
)
def test_whether_a_site_runs_is_told_by_the_defaults(condition, runs):
    source = f"import os\nLEAKY = True\nif {condition}:\n    y = F.leaky_relu(x, 0.5).square()\n"
    [site] = sites(source)
    assert site.runs is runs
    assert (site.condition is None) == (runs is True)
    *_, other = sites(source + "else:\n    y = F.relu(x).square()\n")
    assert other.runs is {True: False, False: True, None: None}[runs]
