"""The page in a real browser: it is opened, clicked, searched and zoomed. Skipped where there is no browser.

Needs Chromium with its driver (Debian: chromium, chromium-driver) and the package selenium.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import explained
import pytest

import bequest

LIMIT_S = 30.0  # reached only by a failing test, so it can be generous

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser without a window."""
    if BROWSER is None or DRIVER is None:
        pytest.skip("no Chromium with its driver was found")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1300,850"):
        options.add_argument(flag)
    # The page has to do without a network: anything that it asked for would fail here.
    options.add_argument("--host-resolver-rules=MAP * ~NOTFOUND")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=DRIVER)
    driver = webdriver.Chrome(options=options, service=service)
    driver.set_page_load_timeout(LIMIT_S)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser: Any, tmp_path: Path) -> Any:
    """The browser, with the page of a start that leaves something behind and shares an object."""
    shared = ["x" * 300]
    told = bequest.explain(
        explained.closing_over({"feed": explained.Feed()}), (shared, {"again": shared, "</script>": "<b>"})
    )
    file = tmp_path / "page.html"
    file.write_text(told.to_html("a start of <mine>"), encoding="utf-8")
    browser.get(file.as_uri())
    return browser


def texts(page: Any, selector: str) -> list[str]:
    """Return the texts of the elements that a selector finds."""
    return [element.text for element in page.find_elements("css selector", selector)]


def row(page: Any, label: str) -> Any:
    """Return the row of the tree with that label."""
    found = [
        e
        for e in page.find_elements("css selector", "#tree .row")
        if e.text.split("\n")[-3:] and label in e.text
    ]
    assert found, f"no row {label!r} among {texts(page, '#tree .row')}"
    return found[0]


def widths(page: Any) -> dict[str, float]:
    """Return the widths of the picture's rectangles by node number."""
    return {
        e.get_attribute("data-node"): float(e.get_attribute("width"))
        for e in page.find_elements("css selector", "#picture rect")
    }


def test_page_has_no_errors(page: Any) -> None:
    """Nothing is reported on the console: no script fails, and nothing is loaded from elsewhere."""
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []
    assert texts(page, "h1") == ["a start of <mine>"]


def test_click_opens_and_tells(page: Any) -> None:
    """A click on a row chooses it, and what is known of it is shown; a second one closes it."""
    target = row(page, "target")
    before = len(texts(page, "#tree .row"))
    target.click()

    assert "crosses\nby value" in page.find_element("id", "about").text
    assert "reads\nclosure packer" in page.find_element("id", "about").text
    target.click()
    shown = [e for e in page.find_elements("css selector", "#tree .row") if e.is_displayed()]
    assert len(shown) < before


def test_search_finds_and_marks(page: Any) -> None:
    """A search marks the rows that it finds, opens the way to them, and fades the rest of the picture."""
    page.find_element("id", "search").send_keys("numbers")

    assert texts(page, "#hits") == ["1 found"]
    assert [".numbers" in text for text in texts(page, "#tree .row.found")] == [True]
    assert page.find_elements("css selector", "#picture rect.faded")


def test_click_in_picture_zooms_and_way_leads_back(page: Any) -> None:
    """A click on a rectangle makes it as wide as the picture; the way above it leads back."""
    before = widths(page)
    number = row(page, "target").get_attribute("data-node")
    page.find_element("css selector", f"#picture rect[data-node='{number}']").click()

    assert widths(page)[number] > before[number]
    assert len(widths(page)) != len(before)
    assert any("target" in text for text in texts(page, "#where button"))
    page.find_elements("css selector", "#where button")[0].click()
    assert widths(page) == before


def test_left_behind_list_leads_to_the_node(page: Any) -> None:
    """What is left behind is listed with its reason; a click shows it in the tree."""
    (left,) = page.find_elements("css selector", "#left li")
    assert "it has begun" in left.text
    left.click()

    assert [".numbers" in text for text in texts(page, "#tree .row.chosen")] == [True]


def test_reference_leads_to_the_object(page: Any) -> None:
    """From a reference a button leads to the object itself."""
    page.find_element("id", "search").send_keys("['again']")
    page.find_element("id", "follow").click()

    assert ["args[0]" in text for text in texts(page, "#tree .row.chosen")] == [True]
