"""A person rates the blind page by keyboard: over the report server, and as a file without any server."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.reports import Reports
from segpipe.pages.rate import rate_page
from segpipe.ratings import count, read_ratings
from tests.test_ratings import shown

pytestmark = pytest.mark.slow
SHOWN = shown()
KEYS = {one.key.item: one.key for one in SHOWN}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Reports]:
    folder = tmp_path / "reports/comparison"
    folder.mkdir(parents=True)
    (folder / "rate.html").write_text(rate_page(SHOWN))
    with Reports(0, tmp_path / "reports", tmp_path / "ratings") as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def opened(browser: Any, address: str, **options: Any) -> tuple[Any, list[str], list[str]]:
    page = browser.new_page(**options)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(address)
    return page, complaints, asked


def left_is_segnet(page: Any) -> bool:
    """Whether the map that is shown on the left is segnet's: what the test knows and the person does not."""
    key = KEYS[page.locator("article:not([hidden])").get_attribute("data-item")]
    return not key.a_left if key.a == "unet" else key.a_left


def test_all_items_are_rated_by_keyboard_and_counted(browser: Any, served: Reports) -> None:
    address = f"http://127.0.0.1:{served.server_address[1]}"
    page, complaints, asked = opened(browser, f"{address}/comparison/rate.html")
    page.keyboard.press("3")
    assert "enter a name" in page.inner_text("#said") and page.evaluate("document.activeElement.id") == "rater"
    page.keyboard.type("Ada Lovelace")
    page.keyboard.press("Enter")
    chosen: dict[str, int] = {}
    for number in range(len(SHOWN)):
        assert page.inner_text("#count") == f"{number} of {len(SHOWN)} rated"
        item = page.locator("article:not([hidden])").get_attribute("data-item")
        chosen[item] = 1 if left_is_segnet(page) else 4
        page.keyboard.press(str(chosen[item]))
    assert "All 11 are rated" in page.inner_text("#said")
    page.wait_for_function("document.getElementById('live').textContent.includes('11 answers by 1 person')")
    # A mind may be changed: the new answer counts.
    page.keyboard.press("ArrowLeft")
    item = page.locator("article:not([hidden])").get_attribute("data-item")
    assert page.locator(f"[data-choice='{chosen[item]}']").get_attribute("aria-pressed") == "true"
    page.keyboard.press("3")
    chosen[item] = 3
    page.wait_for_function("document.getElementById('live').textContent.includes('12 answers by 1 person')")
    answers, problems = read_ratings(served.ratings)
    assert not problems and {one.item: one.choice for one in answers} == chosen
    units = {f"im{i}": i for i in range(12)}
    row = count(answers, list(KEYS.values()), units=units, resamples=200, alpha=0.05, seed=0)["pairs"][0]
    assert (row["losses"], row["ties"], row["wins"]) == (10, 1, 0) and "segnet's are preferred to unet's" in row["sentence"]
    assert not complaints and all(url.startswith((address, "data:")) for url in asked)
    page.reload()
    assert page.input_value("#rater") == "Ada Lovelace" and page.inner_text("#count") == "11 of 11 rated"
    page.close()


def test_answers_that_the_server_refuses_are_kept(browser: Any, served: Reports) -> None:
    page, _, _ = opened(browser, f"http://127.0.0.1:{served.server_address[1]}/comparison/rate.html")
    served.ratings.write_text("a file where the folder should be")
    page.fill("#rater", "Bob")
    page.click("[data-choice='2']")
    page.wait_for_function("document.getElementById('where').textContent.includes('did not take them')")
    assert page.inner_text("#count") == "1 of 11 rated"
    served.ratings.unlink()
    page.reload()
    page.wait_for_function("document.getElementById('live').textContent.includes('1 answers by 1 person')")
    assert read_ratings(served.ratings)[0][0].choice == 2
    page.close()


@pytest.mark.parametrize("width", [390, 1300], ids=["phone", "wide"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_works_as_a_file(browser: Any, tmp_path: Path, width: int, scheme: str) -> None:
    (tmp_path / "rate.html").write_text(rate_page(SHOWN))
    address = (tmp_path / "rate.html").as_uri()
    page, complaints, asked = opened(browser, address, viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.fill("#rater", "Cy <b>&")
    for choice in (1, 5, 2):
        page.click(f"[data-choice='{choice}']")
    page.reload()
    assert page.inner_text("#count") == "3 of 11 rated" and "stay in this browser" in page.inner_text("#where")
    with page.expect_download() as found:
        page.click("#save")
    (tmp_path / "ratings").mkdir()
    assert found.value.suggested_filename.startswith("scenes-Cy-b-")
    found.value.save_as(tmp_path / "ratings" / found.value.suggested_filename)
    answers, problems = read_ratings(tmp_path / "ratings")
    assert not problems and sorted(one.choice for one in answers) == [1, 2, 5]
    assert {one.rater for one in answers} == {"Cy <b>&"} and {one.item for one in answers} <= set(KEYS)
    assert all(page.evaluate("[...document.images].map(i => Boolean(i.alt))"))
    assert page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth") <= 1
    assert not complaints and all(url.startswith(("file:", "data:", "blob:")) for url in asked)
    assert all(page.evaluate("[...document.querySelectorAll('button')].map(b => b.innerText.trim() !== '')"))
    page.close()
