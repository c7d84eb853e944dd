"""Run the pipeline flow once: `python -m flows.run` (`make flow`).

It uses the server of `make ui` where that runs, else a temporary one.
"""

import os
from pathlib import Path

from flows.servers import FOLDER, HOST, answers


def main() -> None:
    os.environ.setdefault("PREFECT_HOME", str(Path.cwd() / FOLDER / "prefect"))
    prefect = f"http://{HOST}:{os.environ.get('PREFECT_PORT', '4200')}"
    reports = f"http://{HOST}:{os.environ.get('REPORTS_PORT', '8000')}"
    if "PREFECT_API_URL" not in os.environ and answers(f"{prefect}/api/health"):
        os.environ["PREFECT_API_URL"] = f"{prefect}/api"
    if answers(reports):
        os.environ.setdefault("SEGPIPE_REPORTS_URL", reports)
    # Prefect reads its settings when it is imported, so only now.
    from flows.pipeline import pipeline

    pipeline(reports_url=os.environ.get("SEGPIPE_REPORTS_URL"))


if __name__ == "__main__":
    main()
