"""The reports, and the Prefect and MLflow pages, as a person sees them: in a browser, without any network but loopback."""

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
import requests

from tests.imports import ROOT

pytestmark = pytest.mark.slow
PAGES = [
    "comparison/index.html",
    "comparison/rate.html",
    "unet/evaluation/index.html",
    "unet/failures/index.html",
    "segnet/failures/index.html",
]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.mark.parametrize("width", [390, 1400], ids=["phone", "wide"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("page_path", PAGES)
def test_a_report_shows_its_pictures_and_no_error(
    browser: Any, tiny_workspace: Path, page_path: str, scheme: str, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    complaints: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tiny_workspace / "reports" / page_path).as_uri())
    page.wait_for_load_state("load")
    page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
    page.evaluate("Promise.all([...document.images].map(i => { i.loading = 'eager'; return i.decode().catch(() => 0); }))")
    images = page.evaluate("[...document.images].map(i => [i.alt, i.naturalWidth])")
    assert images, "the page shows no picture"
    assert all(size > 0 for _, size in images), [alt for alt, size in images if not size]
    assert all(alt for alt, _ in images), "a picture without a description"
    assert not complaints
    assert all(url.startswith(("file:", "data:")) for url in asked), "the page asks a network"
    overflow = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert overflow <= 1, f"the page is {overflow} px wider than the screen"
    page.close()


@pytest.fixture(scope="module")
def ui(tiny_workspace: Path) -> Iterator[dict[str, str]]:
    """`make ui`'s program on free ports, in the tiny workspace."""
    ports = {name: free_port() for name in ("PREFECT_PORT", "MLFLOW_PORT", "REPORTS_PORT")}
    environment = {**os.environ, **{name: str(port) for name, port in ports.items()}, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "flows.servers"]
    process = subprocess.Popen(command, cwd=tiny_workspace, env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    found: dict[str, str] = {}
    for line in process.stdout:
        if match := re.match(r"(\w+) +(http://127\.0\.0\.1:\d+)", line):
            found[match[1]] = match[2]
        if line.startswith("Ctrl-C"):
            break
    assert set(found) == {"Prefect", "MLflow", "Reports"}, "a server did not start"
    yield found
    process.terminate()
    process.wait(timeout=60)
    process.stdout.close()
    for address in found.values():
        with pytest.raises(OSError):
            urllib.request.urlopen(address, timeout=2)


def test_mlflow_compares_the_runs(browser: Any, ui: dict[str, str]) -> None:
    def ask(what: str, **question: Any) -> Any:
        answer = requests.post(f"{ui['MLflow']}/api/2.0/mlflow/{what}/search", json={"max_results": 100, **question}, timeout=30)
        return answer.json()[what]

    experiment = next(e["experiment_id"] for e in ask("experiments") if e["name"] == "scenes")
    named = {run["info"]["run_name"]: run["info"]["run_id"] for run in ask("runs", experiment_ids=[experiment])}
    ids = [named[name] for name in ("unet", "unet-seed1", "segnet")]
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    query = urlencode({"runs": json.dumps(ids), "experiments": json.dumps([experiment])})
    page.goto(f"{ui['MLflow']}/#/compare-runs?{query}")
    page.get_by_text("cost/parameters", exact=True).first.wait_for(timeout=60_000)
    text = page.inner_text("body")
    assert "Comparing 3 Runs" in text
    for name in ("unet", "unet-seed1", "segnet", "cross_entropy"):
        assert name in text
    # The metrics there are a list of which only a part is in view; the charts of the runs can be searched.
    page.goto(f"{ui['MLflow']}/#/experiments/{experiment}/runs?workflowType=machine_learning&compareRunsMode=CHART")
    search = page.get_by_placeholder("Search metric charts")
    search.wait_for(timeout=60_000)
    search.fill("miou_ci_low")
    page.get_by_text("miou_ci_low").first.wait_for(timeout=30_000)
    page.close()


def test_prefect_shows_the_run_on_its_own_port(browser: Any, ui: dict[str, str], tiny_workspace: Path) -> None:
    environment = {**os.environ, "PREFECT_API_URL": f"{ui['Prefect']}/api", "PYTHONPATH": str(ROOT)}
    program = "from flows.pipeline import pipeline; pipeline(training_slots=1)"
    subprocess.run([sys.executable, "-c", program], cwd=tiny_workspace, env=environment, check=True, capture_output=True)
    page = browser.new_page(viewport={"width": 1400, "height": 1000})
    page.goto(f"{ui['Prefect']}/runs")
    page.get_by_text("segpipe").first.wait_for(timeout=60_000)
    deadline = time.monotonic() + 60
    while "Completed" not in page.inner_text("body") and time.monotonic() < deadline:
        time.sleep(0.5)
    text = page.inner_text("body")
    assert "Completed" in text
    assert "Can't connect" not in text
    page.close()


def test_the_reports_are_served(browser: Any, ui: dict[str, str]) -> None:
    page = browser.new_page()
    page.goto(f"{ui['Reports']}/comparison/index.html")
    assert "segpipe" in page.title()
    page.locator("a[href*='failures']").first.click()
    assert "failures" in page.url
    page.close()
