"""Does MLflow still hold what the last call left there? Asked without importing MLflow, which takes seconds at each `dvc repro`.

A server is asked over its REST interface; a SQLite file is read directly, and whatever is not as expected in it means "no":
the answer only decides whether the whole comparison is made.
"""

import sqlite3
from collections.abc import Mapping
from contextlib import closing
from typing import Any

import requests

from segpipe.tracking.connection import SQLITE

TIMEOUT = (1.0, 5.0)
RUNS = """
    SELECT runs.run_uuid, tags.value FROM runs JOIN tags ON tags.run_uuid = runs.run_uuid
    WHERE runs.lifecycle_stage = 'active' AND tags.key = ?
"""


def holds(uri: str, receipt: Mapping[str, Any], *, contents_tag: str, alias: str) -> bool:
    """Whether every run of `receipt` is there with its contents, every version is, and every champion is still champion."""
    rows = [*receipt["experiments"].values(), receipt["comparison"]]
    runs = {row["run_id"]: row["contents"] for row in rows}
    versions = {(row["model_name"], row["version"]) for row in receipt["experiments"].values()}
    champions = {(name, champion["version"]) for name, champion in receipt["champions"].items() if champion["version"]}
    try:
        if uri.startswith(SQLITE):
            found = _in_database(uri.removeprefix(SQLITE), contents_tag, alias)
        elif uri.startswith("http"):
            names = set(receipt["champions"])
            found = _on_server(f"{uri.rstrip('/')}/api/2.0/mlflow", list(runs), names, contents_tag, alias)
        else:
            return False
    except (sqlite3.Error, requests.RequestException, KeyError):
        return False
    found_runs, found_versions, found_champions = found
    same = found_champions == champions and versions <= found_versions
    return same and all(found_runs.get(run) == contents for run, contents in runs.items())


def _in_database(path: str, tag: str, alias: str) -> tuple[dict[str, str], set[tuple[str, str]], set[tuple[str, str]]]:
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=5)) as database:
        runs = dict(database.execute(RUNS, (tag,)).fetchall())
        versions = database.execute("SELECT name, version FROM model_versions WHERE current_stage != 'Deleted_Internal'")
        aliases = database.execute("SELECT name, version FROM registered_model_aliases WHERE alias = ?", (alias,))
        return runs, {(n, str(v)) for n, v in versions.fetchall()}, {(n, str(v)) for n, v in aliases.fetchall()}


def _on_server(
    api: str, ids: list[str], names: set[str], tag: str, alias: str
) -> tuple[dict[str, str], set[tuple[str, str]], set[tuple[str, str]]]:
    with requests.Session() as session:

        def ask(what: str, **query: str | int) -> Any:
            answer = session.get(f"{api}/{what}", params=query, timeout=TIMEOUT)
            answer.raise_for_status()
            return answer.json()

        runs, versions, champions = {}, set(), set()
        for run_id in ids:
            run = ask("runs/get", run_id=run_id)["run"]
            if run["info"]["lifecycle_stage"] == "active":
                runs[run_id] = {t["key"]: t["value"] for t in run["data"].get("tags", [])}.get(tag, "")
        for name in names:
            model = ask("registered-models/get", name=name)["registered_model"]
            champions |= {(name, str(a["version"])) for a in model.get("aliases", []) if a["alias"] == alias}
            page = ask("model-versions/search", filter=f"name = '{name}'", max_results=10000)
            versions |= {(name, str(v["version"])) for v in page.get("model_versions", [])}
        return runs, versions, champions
