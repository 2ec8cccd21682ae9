"""report.html in headless Chromium: nothing fails or is asked for, and its controls do what they say."""

import shutil

import pytest

sync_api = pytest.importorskip("playwright.sync_api", reason="playwright isn't installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")

# The contrast of each text with the nearest ground below it that isn't clear, as WCAG 2.2 defines it.
CONTRASTS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const bend = (part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
  const linear = (part) => bend(part / 255);
  const shine = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const text = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
    if (!text || !element.getClientRects().length) continue;
    if (element.closest("script, style, option, noscript")) continue;
    const style = getComputedStyle(element);
    const ink = parse(element.namespaceURI.endsWith("svg") ? style.fill : style.color);
    let ground = element;
    const clear = (one) => (parse(getComputedStyle(one).backgroundColor)[3] ?? 1) === 0;
    while (ground && clear(ground)) ground = ground.parentElement;
    const paper = parse(getComputedStyle(ground || document.body).backgroundColor);
    const [a, b] = [shine(ink), shine(paper)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), element.tagName, element.textContent.slice(0, 40)]);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser():
    with sync_api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield running
        running.close()


@pytest.fixture
def open_page(browser, reported):
    """Open the page; at the end of the test nothing may have failed or been asked for."""
    messages, requests, pages = [], [], []

    def open_it(width=1000, scheme="light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: messages.append(message.text))
        page.on("pageerror", lambda error: messages.append(str(error)))
        page.on("request", lambda request: requests.append(request.url))
        page.goto((reported / "report.html").as_uri())
        pages.append(page)
        return page

    yield open_it
    assert messages == []
    assert [url for url in requests if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in requests if url.startswith("file:")]) == len(pages)
    for page in pages:
        page.close()


def read_column(page, number):
    return page.locator(f"#table tbody tr:visible > :nth-child({number})").all_inner_texts()


def test_a_title_sorts_and_turns_the_order_round(open_page):
    page = open_page()
    first = read_column(page, 3)
    page.get_by_role("button", name="Dice [95 %]").first.click()
    assert read_column(page, 3) == first[::-1]
    assert page.locator("#table th[aria-sort=ascending]").count() == 1
    page.keyboard.press("Enter")  # the title has the focus
    assert read_column(page, 3) == first
    page.locator("#table th", has_text="ms/image").get_by_role("button").click()
    times = read_column(page, 7)
    numbers = [float(text.replace(",", "")) for text in times if text != "–"]
    assert numbers == sorted(numbers)
    assert times[len(numbers) :] == ["–"] * (len(times) - len(numbers))  # empty cells stay last


def test_the_filter_reaches_tables_and_plots(open_page):
    page = open_page()
    assert page.locator(".strip:visible").count() == 3
    page.get_by_label("baselines").uncheck()
    assert "mean-mask" not in " ".join(read_column(page, 1))
    assert page.locator(".strip:visible").count() == 2
    page.get_by_label("Show approaches with").fill("good")
    assert {name.strip() for name in read_column(page, 1)} == {"good_net"}
    assert page.locator("#speed g:visible").count() >= 1
    assert page.locator("#shown").inner_text() == "1 of 3 shown"


def test_an_image_is_marked_in_every_row(open_page):
    page = open_page()
    page.locator("#image").select_option(index=1)
    marked = page.locator(".dot.on")
    assert marked.count() == 3
    assert len({marked.nth(place).get_attribute("data-image") for place in range(3)}) == 1
    assert page.locator("#chosen").inner_text().count(" · ") == 2
    page.locator(".strip:first-child .dot").first.hover(force=True)
    assert page.locator(".dot.on").count() == 3


def test_cases_are_sorted_found_uncovered_and_opened(open_page):
    page = open_page()
    cards = page.locator("#case-grid .case")
    assert cards.count() == 6
    dice = [float(text.split()[-1]) for text in cards.all_inner_texts()]
    assert dice == sorted(dice)
    page.get_by_label("Sort by").select_option("best")
    assert [float(text.split()[-1]) for text in cards.all_inner_texts()] == sorted(dice, reverse=True)
    assert page.locator("#case-grid .over").first.is_visible()
    page.keyboard.press("o")
    assert not page.locator("#case-grid .over").first.is_visible()
    page.keyboard.press("o")
    cards.first.click()
    title = page.locator("#case-title").inner_text()
    assert page.locator("#case-all .case").count() == 4  # the truth and three approaches
    page.keyboard.press("ArrowRight")
    assert page.locator("#case-title").inner_text() != title
    assert page.locator("dialog :focus").count() == 1  # the keyboard is still in the dialog
    page.locator("dialog").get_by_label("overlay").uncheck()
    assert not page.locator("#case-all .over").first.is_visible()
    page.locator("dialog").get_by_label("overlay").check()
    page.keyboard.press("Escape")
    page.get_by_label("Find").fill("no such image")
    assert cards.count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_can_be_read(open_page, scheme):
    page = open_page(scheme=scheme)
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    found = page.evaluate(CONTRASTS)
    assert len(found) > 100
    assert [one for one in found if one[0] < 4.5] == []


def test_the_theme_can_be_turned(open_page):
    page = open_page(scheme="dark")
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    page.get_by_role("button", name="Dark or light").click()
    assert page.evaluate(paper) == "rgb(255, 255, 255)" != dark


def test_it_fits_a_telephone(open_page):
    page = open_page(width=400)
    assert page.evaluate("document.documentElement.scrollWidth") <= 400


@pytest.mark.parametrize("chosen", [True, False])
def test_it_is_printed_in_dark_ink_on_white(open_page, chosen):
    page = open_page(scheme="dark")
    if chosen:  # by the button: dark, light, dark
        page.get_by_role("button", name="Dark or light").click(click_count=2)
    page.emulate_media(media="print", color_scheme="dark")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.evaluate("getComputedStyle(document.body).color") == "rgb(0, 0, 0)"
    assert page.locator(".controls:visible").count() == 0


def test_durations_are_sorted_by_their_length(open_page):
    page = open_page()
    page.evaluate(
        """() => document.querySelectorAll("#times table").forEach((table) => {
            if (!table.tHead.textContent.includes("Time per fit")) return;
            ["2 h 48 min", "35 min 12 s", "3.0 s"].forEach((text, row) => {
                if (table.tBodies[0].rows[row]) table.tBodies[0].rows[row].cells[2].textContent = text;
            });
        })"""
    )
    page.get_by_role("button", name="Time per fit").click()
    table = page.locator("#times table", has_text="Time per fit")
    found = table.locator("tbody tr td:nth-child(3)").all_inner_texts()
    assert found == sorted(found, key=["3.0 s", "35 min 12 s", "2 h 48 min"].index)
    assert len(found) > 1


def test_every_picture_has_a_text(open_page):
    page = open_page()
    assert page.locator("img:not([alt])").count() == 0
    assert page.locator("figure img[alt='']").count() == 0
    assert page.locator("svg[role=img]:not([aria-label])").count() == 0
