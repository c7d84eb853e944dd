"""Who answers at an address, and who does not: decided without MLflow."""

import socket
from pathlib import Path

import pytest

from segpipe.tracking import connection


def test_a_closed_port_is_unreachable() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
    assert "cannot be reached" in str(connection.trouble(uri))


def test_a_port_that_accepts_and_says_nothing_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        assert "does not answer" in str(connection.trouble(f"http://127.0.0.1:{mute.getsockname()[1]}"))


def test_a_database_needs_no_server() -> None:
    assert connection.trouble("sqlite:////nowhere/mlflow.db") is None


@pytest.mark.parametrize("uri", ["file:///tmp/mlruns", "./mlruns"])
def test_a_plain_folder_is_refused_with_the_way_out(uri: str) -> None:
    with pytest.raises(ValueError, match="MLFLOW_TRACKING_URI=.*sqlite:///"):
        connection.trouble(uri)


def test_secrets_stay_out_of_receipts() -> None:
    assert connection.redacted("https://me:secret@host:5000/path") == "https://host:5000/path"
    assert connection.redacted("sqlite:////a/mlflow.db") == "sqlite:////a/mlflow.db"


def test_the_default_does_not_depend_on_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert connection.default_uri(Path(".")) == f"sqlite:///{tmp_path}/.servers/mlflow.db"
