"""The Prefect server, the MLflow server and the reports, on loopback: `python -m flows.servers` (`make ui`).

Ctrl-C ends all three. Ports: PREFECT_PORT, MLFLOW_PORT and REPORTS_PORT in the environment.
Data stay in `.servers/` of the workspace.
"""

import os
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

HOST = "127.0.0.1"
FOLDER = ".servers"
START_SECONDS = 180


@dataclass(frozen=True, kw_only=True)
class Server:
    """One server: how to start it, and the address that answers when it is ready."""

    name: str
    command: list[str]
    address: str
    """The page for a person."""
    health: str
    environment: dict[str, str]


def servers(workspace: Path, *, prefect_port: int, mlflow_port: int, reports_port: int) -> list[Server]:
    """The three servers of `workspace`, each bound to loopback and with its telemetry off."""
    folder = workspace / FOLDER
    folder.mkdir(exist_ok=True)
    (workspace / "reports").mkdir(exist_ok=True)
    prefect, mlflow, reports = (f"http://{HOST}:{port}" for port in (prefect_port, mlflow_port, reports_port))
    python = sys.executable
    return [
        Server(
            name="Prefect",
            command=[python, "-m", "prefect", "server", "start", "--host", HOST, "--port", str(prefect_port)],
            address=prefect,
            health=f"{prefect}/api/health",
            environment={
                "PREFECT_HOME": str(folder / "prefect"),
                "PREFECT_API_URL": f"{prefect}/api",
                "PREFECT_UI_API_URL": f"{prefect}/api",  # without it the page calls port 4200 whatever the port is
                "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
                "DO_NOT_TRACK": "1",
            },
        ),
        Server(
            name="MLflow",
            command=[
                *[python, "-m", "mlflow", "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1"],
                *["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}"],
                *["--artifacts-destination", str(folder / "mlartifacts")],
            ],
            address=f"{mlflow}/#/experiments?workflowType=machine_learning",  # else it opens on its pages for chat traces
            health=f"{mlflow}/health",
            environment={"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "1"},
        ),
        Server(
            name="Reports",
            command=[python, "-m", "flows.reports", str(reports_port), str(workspace / "reports"), str(workspace / "ratings")],
            address=reports,
            health=reports,
            environment={},
        ),
    ]


def start(server: Server) -> subprocess.Popen[bytes]:
    """Start one server in a group of its own; what it prints goes to `.servers/<name>.log`."""
    log = Path(FOLDER) / f"{server.name.lower()}.log"
    with log.open("wb") as file:
        return subprocess.Popen(
            server.command,
            env={**os.environ, **server.environment},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def answers(url: str) -> bool:
    """Whether `url` answers with success within two seconds."""
    try:
        with urllib.request.urlopen(url, timeout=2) as response:
            return bool(response.status == 200)
    except (OSError, HTTPException):  # a closed port, an error status, or something that speaks no HTTP
        return False


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a server with all its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(timeout=15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def main() -> None:
    """Start the three servers, print their addresses when they answer, and stay until Ctrl-C or until one of them ends."""
    defaults = {"prefect": 4200, "mlflow": 5000, "reports": 8000}
    ports = {f"{name}_port": int(os.environ.get(f"{name.upper()}_PORT", port)) for name, port in defaults.items()}
    wanted = servers(Path.cwd(), **ports)
    for server in wanted:
        if answers(server.health):
            raise SystemExit(f"{server.address} answers already: stop what runs there, or choose {server.name.upper()}_PORT=...")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    running: list[tuple[Server, subprocess.Popen[bytes]]] = []
    try:
        for server in wanted:
            running.append((server, start(server)))
        deadline = time.monotonic() + START_SECONDS
        for server, process in running:
            while not answers(server.health):
                if process.poll() is not None or time.monotonic() > deadline:
                    log = (Path(FOLDER) / f"{server.name.lower()}.log").read_text(errors="replace")
                    raise SystemExit(f"{server.name} did not start; {FOLDER}/{server.name.lower()}.log ends with:\n{log[-2000:]}")
                time.sleep(0.5)
            print(f"{server.name:8} {server.address}", flush=True)
        print("Ctrl-C ends them.", flush=True)
        while all(process.poll() is None for _, process in running):
            time.sleep(1)
        raise SystemExit("; ".join(f"{s.name} ended with {p.poll()}" for s, p in running if p.poll() is not None))
    except KeyboardInterrupt:
        print("\nstopping")
    finally:
        for _, process in running:
            stop(process)


if __name__ == "__main__":
    main()
