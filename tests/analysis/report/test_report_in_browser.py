"""Claims about how the report is rendered, by the headless Chromium of this machine.

Whether it is beautiful only an eye can tell; no test here claims that.
"""

import shutil

import pytest

from analysis.report.report import write_report
from tests.analysis.conftest import write_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("few_draws")]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FOUND = next((path for path in map(shutil.which, NAMES) if path), None)
SMALLEST_PX = 12

# Text that is seen: every node that holds some itself, outside of what is hidden or folded away.
SIZES = """
() => [...document.querySelectorAll('body *')]
  .filter(node => [...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim()))
  .filter(node => node.checkVisibility())
  .map(node => [parseFloat(getComputedStyle(node).fontSize), node.textContent.trim().slice(0, 40)])
"""
# Relative luminances of text and of what lies behind it (WCAG 2.2, contrast ratio).
CONTRASTS = """
() => {
  const rgb = text => text.match(/[\\d.]+/g).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = node => {
    for (; node; node = node.parentElement) {
      const c = rgb(getComputedStyle(node).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
  };
  return [...document.querySelectorAll('p, h1, h2, h3, th, td, dt, dd, li, a, caption, figcaption')]
    .filter(node => node.checkVisibility() && node.textContent.trim())
    .map(node => {
      const [a, b] = [light(rgb(getComputedStyle(node).color)), light(behind(node))];
      return [(Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05), node.textContent.slice(0, 40)];
    });
}
"""
LONG = "RuntimeError: " + "a_name_without_any_place_to_break_it_" * 4


@pytest.fixture(scope="module")
def browser():
    if FOUND is None:
        pytest.skip(f"no Chromium is installed: none of {', '.join(NAMES)} is on the PATH")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def place(tmp_path_factory, rows_with_losses):
    """A sweep with losses whose reason is long, and two settings."""
    rows = [row | {"reason": LONG} if row["reason"] else row for row in rows_with_losses]
    rows += [
        row | {"budget_value": 400.0, "cell_id": row["cell_id"] + "l", "cell": row["cell"] + "l"}
        for row in rows
        if row["slope"] in (0.3, 0.5, 0.9)
    ]
    folder = write_store(tmp_path_factory.mktemp("browser") / "results" / "local", rows)
    write_report(folder)
    return folder


@pytest.fixture(scope="module", params=[(400, "light"), (1200, "light"), (400, "dark")], ids=str)
def opened(request, browser, place):
    """The page at one width and colour scheme, and what its console said and it asked for."""
    width, scheme = request.param
    said = []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: said.append(request.url))
    page.goto((place / "report.html").as_uri())
    yield page, [line for line in said if not line.startswith(("data:", "file:"))]
    page.close()


def test_it_renders_without_an_error_or_a_request_and_with_every_figure(opened):
    page, said = opened
    assert page.title().startswith("local:")
    pictures = page.eval_on_selector_all("img", "all => all.map(i => [i.complete, i.naturalWidth])")
    assert len(pictures) >= 3
    assert all(done and width > 0 for done, width in pictures)
    assert said == []


def test_it_can_be_read(opened):
    """No wider than the window, 12 px and more, and a contrast of 4.5 (WCAG 2.2, level AA)."""
    page, _ = opened
    widths = page.evaluate("[document.scrollingElement.scrollWidth, window.innerWidth]")
    assert widths[0] <= widths[1]
    sizes = page.evaluate(SIZES)
    assert len(sizes) > 100
    assert [entry for entry in sizes if entry[0] < SMALLEST_PX] == []
    assert [entry for entry in page.evaluate(CONTRASTS) if entry[0] < 4.5] == []
    box = page.locator("h1").bounding_box()
    assert 0 <= box["y"] < box["y"] + box["height"] < 600  # the answer is on the first screen
