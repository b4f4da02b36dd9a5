"""Claims about the printed table: the stored numbers with their intervals, and what is missing."""

import io
import statistics

import pytest

from analysis.conclusions.contrasts import contrasts
from analysis.conclusions.stage_interaction import stage_sentences
from analysis.number_format import DASH, plus_minus
from analysis.planning.pairing import pairing_sentences
from analysis.report.summary import summarize
from analysis.rows.stages import PRIMARY
from analysis.text_table import Summary, TextTable, markdown, plain, show
from tests.analysis.conftest import make_row, make_study

pytestmark = pytest.mark.usefixtures("few_draws")

STAGES = ("pre_quant_bpb", "post_quant_bpb", "post_quant_sliding_bpb", "ttt_bpb")


@pytest.fixture(scope="module")
def summary(cells):
    return summarize(make_study(cells))


@pytest.fixture(scope="module")
def few(cells):
    """Three activations: a sweep that is quick to summarize."""
    return cells[cells["key"].isin(["relu2", "leaky_relu2-s0.5", "asqu"])]


def line_of(text, label):
    """The line of the table, which stands before the sentences."""
    return next(line for line in text.splitlines() if line.lstrip("| ").startswith(label))


def test_the_table_shows_the_stored_numbers(summary, rows):
    line = line_of(plain(summary), "ASQU")
    for stage in STAGES:
        scores = [row[stage] for row in rows if row["activation"] == "asqu"]
        sd = f" ({statistics.stdev(scores):.4f})" if stage == PRIMARY else ""
        assert f" {statistics.fmean(scores):.4f}{sd} " in line
    sizes = [row["artifact_bytes"] for row in rows if row["activation"] == "asqu"]
    assert line.endswith(f" {statistics.fmean(sizes) / 1000:.1f}")


def test_the_interval_of_the_table_is_the_one_that_compares(summary, cells):
    (section,) = summary.sections
    place = section.headings.index("vs ref.")
    shown = {line[0]: line[place] for line in section.lines}
    for row in contrasts(make_study(cells)).to_dict("records"):
        gap = plus_minus(row["difference"], row["half_width"], signed=True)
        assert shown[row["label"]] == gap
    assert shown["LeakyReLU² 0.5"] == DASH
    assert shown["LeakyReLU² 0.0"] == shown["ReLU²"]


def test_lines_come_in_the_order_of_the_grid(summary):
    (section,) = summary.sections
    labels = [line[0] for line in section.lines]
    assert labels[:2] == ["ReLU²", "LeakyReLU² 0.0"]
    assert labels[-2:] == ["LeakyReLU² 0.9", "ASQU"]
    assert "windows of 128 tokens, sliding stride 32" in section.title


def test_the_verdict_and_the_control_follow_the_table(summary, cells):
    sentences = summary.sentences
    assert any("not resolved" in sentence for sentence in sentences)
    assert any("bit for bit" in sentence for sentence in sentences)
    assert set(stage_sentences(make_study(cells))) <= set(sentences)
    assert set(pairing_sentences(make_study(cells))) <= set(sentences)
    assert not any("Without a score" in sentence for sentence in sentences)


def test_what_is_missing_is_said_cell_by_cell(cells_with_losses):
    text = plain(summarize(make_study(cells_with_losses)))
    assert "2 cells of 36 (1 diverged, 1 failed)" in text
    assert "leaky_relu2-s0.8_seed2_200steps: diverged, loss is not finite at step 31." in text
    assert line_of(text, "LeakyReLU² 0.8†")
    assert "is not ranked" in text


def test_cells_that_have_not_run_are_counted(few):
    text = plain(summarize(make_study(few[few["seed"] != 3])))
    assert "30 cells of 36 (30 not run yet)" in text


def test_an_activation_without_a_score_has_dashes(few):
    learned = few["activation"] == "asqu"
    gone = {name: few[name].mask(learned) for name in (*STAGES, "artifact_bytes")}
    lost = few.assign(**gone, state=few["state"].mask(learned, "lost"))
    assert line_of(plain(summarize(make_study(lost))), "ASQU").split() == ["ASQU", "0"] + 7 * ["–"]


def test_a_stage_that_nobody_scored_has_no_column(few):
    (section,) = summarize(make_study(few.assign(ttt_bpb=float("nan")))).sections
    assert "TTT" not in section.headings
    assert "sliding (sd)" in section.headings


def test_a_sweep_of_one_activation_has_a_table():
    summary = summarize(make_study([make_row("asqu", None, 1)], reference="asqu"))
    assert any("nothing to be compared with" in sentence for sentence in summary.sentences)


def test_each_setting_has_its_own_section(rows):
    rows = [row for row in rows if row["slope"] in (None, 0.5)]
    longer = [{**row, "budget_value": 1000.0} for row in rows]
    titles = [section.title for section in summarize(make_study(rows + longer)).sections]
    assert [title.split(";")[0] for title in titles] == ["local, 200 steps", "local, 1000 steps"]


def test_a_reason_is_neither_html_nor_a_link_nor_a_colour(few):
    reason = "<b>x</b> [a](http://b) \x1b[31m"
    lost = few.assign(state=["succeeded"] * 8 + ["failed"], reason=[None] * 8 + [reason])
    text = markdown(summarize(make_study(lost)))
    assert "&lt;b&gt;x" in text
    assert r"\[a\]" in text
    assert "\x1b" not in text


def test_markdown_holds_the_same_entries_as_plain_text(summary):
    entries = [part.strip() for part in line_of(markdown(summary), "ASQU").strip("|").split("|")]
    assert all(entry in line_of(plain(summary), "ASQU") for entry in entries)
    assert len(entries) == 9


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_pipe_gets_aligned_text_and_a_terminal_a_drawn_table_without_losing_a_digit(
    summary, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    pipe, terminal = io.StringIO(), Terminal()
    show(summary, pipe)
    show(summary, terminal)
    assert pipe.getvalue() == plain(summary)
    assert "──" in terminal.getvalue()
    assert "…" not in terminal.getvalue()
    for entry in summary.sections[0].lines[-1]:
        assert all(part in terminal.getvalue() for part in entry.split())


def test_sentences_in_the_last_column_are_printed_as_they_are_and_pad_no_other_line(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = (("a.log", "1.2236", "short"), ("b.log", "1.2", "line 3: '[/bold] [1/3]' is damaged"))
    table = TextTable("logs", ("log", "score", "why"), lines, ends_in_words=True)
    given, terminal = Summary("import", (table,), ("done [/x]",)), Terminal()
    assert plain(given).split("\n")[1:4] == [
        "log     score  why",
        "a.log  1.2236  short",
        "b.log     1.2  line 3: '[/bold] [1/3]' is damaged",
    ]
    show(given, terminal)
    assert "'[/bold] [1/3]' is damaged" in terminal.getvalue()
    assert "done [/x]" in terminal.getvalue()


def test_rows_of_different_code_are_not_compared_without_a_word(few):
    alike = summarize(make_study(few.assign(trainer_hash="a")))
    assert not any("Not alike" in sentence for sentence in alike.sentences)
    mixed = few.assign(trainer_hash=["a", *["b"] * (len(few) - 1)])
    (said,) = (s for s in summarize(make_study(mixed)).sentences if "Not alike" in s)
    assert "2 versions of the trainer's code (trainer_hash)" in said
