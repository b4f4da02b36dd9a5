"""Claims about the report: it stands alone, answers in order, escapes, and says what is missing.

What it says is compared with the functions that it calls; whether those are right is claimed
elsewhere. How it looks is looked at in ``test_report_in_browser``.
"""

import re
from dataclasses import replace
from itertools import pairwise

import pytest

from analysis.__main__ import main
from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.stage_interaction import stage_sentences
from analysis.figures import catalog
from analysis.number_format import number, p_value, plus_minus
from analysis.planning.pairing import pairing_sentences
from analysis.report import report as report_module
from analysis.report.document import Bar, Row, Table
from analysis.report.html import render_html, scale_of, typeset
from analysis.report.markdown import MOST_LINES, render_markdown
from analysis.report.report import make_report, pictures, write_report
from analysis.report.report_data import primary_setting, report_data
from analysis.rows.stages import PRIMARY
from analysis.stats.compare import compare
from analysis.stats.quantization import delta_stats, with_deltas
from analysis.study import read_study
from tests.analysis.conftest import lost, make_frame, make_study
from tests.support.page import parsed

pytestmark = pytest.mark.usefixtures("few_draws")

HOSTILE = "<script>alert(1)</script>|`rm`\"'&amp; *x* [y](http://z)"
ORDER = ["best", "quantization", "costs", "failed", "repeat", "limits"]


@pytest.fixture(scope="module")
def made(store):
    """The report of a finished sweep, with three pictures; the slow tests draw all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report_module, "pictures", some_pictures)
        return make_report(report_data(read_study(store)))


def some_pictures(names, setting):
    kept = [name for name in names if name in {"differences", "quant_delta", "artifact_bytes"}]
    return pictures(kept, setting)


@pytest.fixture(scope="module")
def page(made):
    return parsed(render_html(made))


@pytest.fixture
def reported(store_of, monkeypatch):
    """``reported(rows)``: report and page of other rows, without the seconds that pictures take."""
    monkeypatch.setattr(report_module, "pictures", lambda names, setting: ())

    def report(rows):
        made = make_report(report_data(read_study(store_of(rows))))
        return made, parsed(render_html(made))

    return report


@pytest.fixture(scope="module")
def few(rows):
    """Three slopes, ReLU² and ASQU: a grid that is quick to analyse."""
    return [row for row in rows if row["slope"] in (None, 0.3, 0.5, 0.9)]


def texts(nodes):
    return [node.text() for node in nodes]


def table_of(page, caption):
    """The body of the first table whose caption begins so, as rows of texts."""
    for table in page.all("table"):
        if table.all("caption")[0].text().startswith(caption):
            (body,) = table.all("tbody")
            return [texts(row.all("th", "td")) for row in body.all("tr")]
    raise AssertionError(f"no table {caption!r}")


def test_the_page_needs_nothing_else(page):
    links = [
        (node.tag, node.attributes[name])
        for node in page.all()
        for name in ("src", "href", "data", "action", "srcset", "poster")
        if name in node.attributes
    ]
    assert links
    assert all(link.startswith(("#", "data:image/svg+xml;base64,")) for _, link in links)
    assert not page.all("script", "link", "iframe", "object")
    (style,) = page.all("style")
    assert not re.search(r"url\(|@import|https?:", style.text())
    policy = [node.attributes.get("content", "") for node in page.all("meta")]
    assert any("default-src 'none'" in content for content in policy)


def test_it_answers_in_order_and_every_link_of_the_contents_has_a_target(page):
    (everything,) = page.all("main")
    sections = [node for node in everything.children if getattr(node, "tag", "") == "section"]
    assert [section.attributes["id"] for section in sections] == ORDER
    targets = {node.attributes["id"] for node in page.all() if "id" in node.attributes}
    (contents,) = page.all("nav")
    links = [node.attributes["href"] for node in contents.all("a")]
    assert links == [f"#{anchor}" for anchor in ORDER]
    assert {link[1:] for link in links} <= targets


def test_the_page_is_well_formed_for_who_cannot_see_it(page):
    ids = [node.attributes["id"] for node in page.all() if "id" in node.attributes]
    assert len(ids) == len(set(ids))
    labels = [node.attributes.get("aria-labelledby") for node in page.all()]
    assert {label for label in labels if label} <= set(ids)
    levels = [int(node.tag[1]) for node in page.all("h1", "h2", "h3", "h4")]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(below <= level + 1 for level, below in pairwise(levels))
    for table in page.all("table"):
        assert len(table.all("caption")) == 1
        assert all(cell.attributes.get("scope") in {"col", "row"} for cell in table.all("th"))
    alts = [picture.attributes["alt"] for picture in page.all("img")]
    assert len(alts) == len(set(alts)) == 3
    assert min(map(len, alts)) > 20


def test_the_table_of_contrasts_holds_the_numbers_of_the_function(page, cells):
    shown = {line[0].split(" (=")[0]: line for line in table_of(page, "Difference from")}
    found = contrasts(make_study(cells))
    assert len(shown) == len(found) == 10
    for row in found.to_dict("records"):
        _, bar, difference, n, nats, p, resolved, rule = shown[row["label"]]
        assert bar == ""  # drawn
        assert difference == plus_minus(row["difference"], row["half_width"], signed=True)
        assert n == str(row["n"])
        assert nats == number(row["nats"], signed=True)
        assert p == p_value(row["p_value"]).removeprefix("p ").removeprefix("= ")
        assert resolved == ("yes" if row["resolved"] else "no")
        assert rule == row["record_rule"]


def test_the_table_of_deltas_holds_the_numbers_of_the_functions(page, cells):
    shown = {line[0]: line for line in table_of(page, "Change of the score")}
    places = {"quant_delta": 2, "ttt_gain": 4}
    for row in delta_stats(cells).to_dict("records"):
        expected = plus_minus(row["mean"], row["half_width"], signed=True)
        assert shown[row["label"]][places[row["quantity"]]] == expected
    for quantity, place in places.items():
        for row in compare(make_study(with_deltas(cells)), quantity).to_dict("records"):
            expected = plus_minus(row["difference"], row["half_width"], signed=True)
            assert shown[row["label"]][place + 1] == expected


def test_both_reports_say_what_quantization_changes_and_what_pairing_bought(made, store):
    told = stage_sentences(read_study(store))
    assert len(told) == 2
    assert {*told, *pairing_sentences(read_study(store))} <= set(made.footnotes)
    (section,) = (each for each in made.sections if each.anchor == "quantization")
    assert section.blocks[0].text == " ".join(told)


def test_the_answer_asked_otherwise_is_the_same_where_it_names_the_same_activation(page):
    first, *others = table_of(page, "Does the answer survive?")
    assert first[-1] == "yes"
    assert len(others) == 4  # with tainted attempts, and of three other stages
    assert all((line[-1] == "yes") == (line[1] == first[1]) for line in others)


def test_a_kilobyte_has_a_thousand_bytes(page, cells):
    shown = {line[0]: line for line in table_of(page, "Cost of one cell")}
    mean = cells.loc[cells["key"] == "asqu", "artifact_bytes"].mean()
    assert shown["ASQU"][2].startswith(f"{mean / 1000:.1f} ")


@pytest.mark.slow
def test_the_same_rows_give_the_same_bytes(store):
    made = make_report(report_data(read_study(store)))
    assert write_report(store) == [str(store / "report.html"), str(store / "report.md")]
    assert (store / "report.html").read_text(encoding="utf-8") == render_html(made)
    assert (store / "report.md").read_text(encoding="utf-8") == render_markdown(made)


def test_figures_that_are_written_with_a_report_are_drawn_from_its_values(store, made, monkeypatch):
    data, drawn, told = report_data(read_study(store)), {}, []
    monkeypatch.setattr(report_module, "report_data", lambda study: data)
    monkeypatch.setattr(report_module, "make_report", lambda data: made)
    monkeypatch.setattr(
        catalog, "draw_or_reason", lambda name, of: drawn.update({name: of}) or name
    )
    assert len(write_report(store, figures=True, tell=told.append)) == 2
    assert told == list(drawn) == list(catalog.FIGURES)
    assert set(map(id, drawn.values())) == {id(data.settings[0].figures)}


def test_a_partial_sweep_says_first_that_it_is_one_and_names_each_cell_without_a_score(
    reported, rows_with_losses
):
    """Whatever names and reasons hold, they are text."""
    rows = [row | {"device_name": HOSTILE, "revision": HOSTILE} for row in rows_with_losses[:30]]
    bad = {"reason": HOSTILE, "node": HOSTILE, "log": HOSTILE, "cell": HOSTILE}
    made, page = reported([row | bad if row["state"] == "failed" else row for row in rows])
    (header,) = page.all("header")
    assert "Without a score: 8 cells of 36 (1 diverged, 1 failed, 6 not run yet)." in header.text()
    hostile, named = table_of(page, "Every cell")
    assert hostile.count(HOSTILE.replace("`", "")) == 4
    diverged = ["leaky_relu2-s0.8_seed2_200steps", "diverged", "loss is not finite at step 31"]
    assert named[:3] == diverged
    # Survivors of an activation with a diverged seed are shown, and compared with nothing.
    assert "LeakyReLU² 0.8" not in {line[0] for line in table_of(page, "Difference from")}
    assert "LeakyReLU² 0.8 †" in {line[0] for line in table_of(page, "Change of the score")}
    assert not page.all("script", "y", "a b")
    assert all(link.attributes["href"].startswith("#") for link in page.all("a"))
    text = render_markdown(made)
    assert "6 not run yet" in text
    assert "<script>" not in text
    assert not re.search(r"(?<!\\)\]\(", text)


def test_a_sweep_that_failed_whole_has_a_report_of_its_failures_and_status_2(
    store_of, rows, capsys
):
    folder = store_of([lost(row, "failed", "exit status 1") for row in rows])
    assert main(["report", "--sweep", folder.name, "--results", str(folder.parent)]) == 2
    assert "report.html names each" in capsys.readouterr().err
    page = parsed((folder / "report.html").read_text(encoding="utf-8"))
    assert texts(page.all("h1")) == ["No answer: none of 36 cells has a score."]
    assert len(table_of(page, "Every cell")) == 36
    assert "36 cells failed: exit status 1." in page.text()
    assert not page.all("img")


def test_one_seed_is_shown_without_an_interval_and_resolves_nothing(reported, few):
    made, page = reported([row for row in few if row["seed"] == 1])
    assert made.verdict.startswith("Too few seeds to know the noise: whether")
    for line in table_of(page, "Difference from"):
        assert "±" not in line[2]
        assert line[-2] == "–"


def test_the_large_sentence_claims_better_only_where_it_is_resolved(page, reported, few):
    (title,) = texts(page.all("h1"))
    shown, compared = title.split(". ", 1)
    assert shown.startswith("Of the fixed slopes, the best lies in 0.")
    assert compared == "No activation is shown to be better than LeakyReLU² 0.5."
    lead = [
        row | {PRIMARY: row[PRIMARY] - 0.05} if row["activation"] == "asqu" else row for row in few
    ]
    made, other = reported(lead)
    best = table_of(other, "Difference from")[0]
    assert best[0] == "ASQU"
    gap = best[2].removeprefix("−").replace(" ±", " ± ")
    assert (
        made.verdict.split(". ", 1)[1]
        == f"ASQU is better than LeakyReLU² 0.5, by {gap} bits per byte."
    )


@pytest.mark.slow
def test_settings_have_parts_of_their_own_and_the_first_screen_answers_for_the_primary_one(
    reported, few
):
    long = [
        row | {"budget_value": 400.0, "cell_id": row["cell_id"] + "l", "cell": row["cell"] + "l"}
        for row in few
    ]
    made, page = reported(few + long)
    assert "400 steps" in made.kicker
    assert texts(page.all("h3")) == ["local, 400 steps", "local, 200 steps"] * 3
    assert any("local, 200 steps" in note for note in made.footnotes)


def test_the_primary_setting_is_chosen_by_the_grid(rows):
    def with_axis(rate, budget):
        return [
            row | {"set_json": f'{{"optim.lr": {rate}}}', "budget_value": budget} for row in rows
        ]

    grid = [row for rate in (0.01, 0.02, 0.03) for row in with_axis(rate, 400.0)]
    frame = make_frame(grid + with_axis(0.02, 200.0))
    assert primary_setting(make_study(frame)) == "local, 400 steps, optim.lr = 0.02"
    seconds = [row | {"budget_kind": "seconds", "budget_value": 60.0} for row in rows]
    assert primary_setting(make_study(make_frame(grid + seconds))) == "local, 60 s"


@pytest.mark.slow
def test_slot_that_is_not_legal_stands_apart_and_is_marked(reported, few):
    slot = [row | {"slot_bpb": row["ttt_bpb"] - 0.01, "slot_legal": False} for row in few]
    _, page = reported(slot)
    assert len(table_of(page, "SLOT, apart from everything above. NOT A LEGAL SCORE")) == 5
    assert "SLOT" not in {line[0].split(",")[0] for line in table_of(page, "Does the answer")}


def test_the_markdown_is_a_verdict_a_table_and_footnotes_in_sixty_lines(made):
    lines = render_markdown(made).splitlines()
    assert len(lines) <= MOST_LINES
    assert lines[0].startswith("### local: Of the fixed slopes, the best lies in")
    assert lines[2].startswith("Use ")
    table = [line for line in lines if line.startswith("|")]
    columns = [line.count("|") - line.count("\\|") for line in table]
    # Every activation; then three seeds, mean and sd of what to use and of the reference.
    assert columns == [columns[0]] * (2 + 10) + [columns[-1]] * (2 + 2 * 5)
    called = set(re.findall(r"\[\^\d+\]", lines[4]))
    assert called == {line.split(":")[0] for line in lines if line.startswith("[^")}


def test_a_long_table_is_cut_in_the_markdown_and_the_cut_is_told(made):
    first, *others = made.tables
    long = replace(first, rows=first.rows * 20)
    text = render_markdown(replace(made, tables=(long, *others)))
    named = ("| LeakyReLU²", "| ReLU²", "| ASQU")
    shown = sum(line.startswith(named) for line in text.splitlines())
    shown -= sum(len(table.rows) for table in others)
    assert len(text.splitlines()) <= MOST_LINES
    assert f"{len(long.rows) - shown} more rows are in report.html." in text


def test_bars_lie_on_one_scale_that_holds_zero():
    rows = (Row(("a",), bar=Bar(0.5, 0.25, 0.75)), Row(("b",), bar=Bar(0.9, None, None)))
    scale = scale_of(Table(caption="", headings=("x",), rows=rows, bars="bar"))
    places = [float(scale.at(value)[:-1]) for value in (0.0, 0.25, 0.5, 0.75, 0.9)]
    assert 0 < places[0] < places[1] < places[3] < places[4] < 100
    # Written with two decimals, so a difference of places is within 0.01 of the width.
    assert float(scale.width(0.25, 0.75)[:-1]) == pytest.approx(places[3] - places[1], abs=0.011)


def test_commands_are_set_as_code_and_nothing_else_becomes_markup():
    assert str(typeset("run `make sweep` <b>")) == "run <code>make sweep</code> &lt;b&gt;"
    assert "<code>&lt;script&gt;</code>" in str(typeset("`<script>`"))
