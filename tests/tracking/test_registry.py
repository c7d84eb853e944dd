"""MLflow becomes complete from files alone, whatever happened before, and a second call changes nothing."""

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from segpipe.tracking import connection, glance, lineage, registry, runs, writer
from tests.tracking import workspace
from tests.tracking.workspace import register

State = Callable[[], dict[str, Any]]


def test_a_run_holds_everything_and_a_second_call_adds_nothing(tmp_path: Path, uri: str, client: Any, state: State) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    workspace.add_experiment(tmp_path, "segnet", quality=0.8, seed=1)
    outs = {"data/converted/scenes": "aa.dir", "models/unet/model.safetensors": "bb"}
    origin = lineage.Lineage(revision="f00d", dirty=True, outs=outs)
    receipt = register(tmp_path, uri, "unet", "segnet", lineage=origin)
    assert receipt["complete"] and receipt["pending"] is None
    assert (receipt["champion"]["experiment"], receipt["champion"]["decision"]) == ("segnet", "first")

    run = client.get_run(receipt["experiments"]["unet"]["run_id"])
    assert run.info.status == "FINISHED" and run.info.run_name == "unet"
    assert run.data.params["train.lr"] == "0.1"
    assert run.data.metrics["miou_ci_low"] == pytest.approx(run.data.metrics["miou"] - 0.01)
    assert run.data.metrics["iou/a_b_ tree"] == 0.25
    curve = client.get_metric_history(run.info.run_id, "train_loss")
    assert [(p.step, p.value) for p in curve] == [(1, 1 / 3), (2, 1 / 6), (3, 1 / 9)]
    assert {a.path for a in client.list_artifacts(run.info.run_id, "evaluation")} >= {
        "evaluation/confusion.png",
        "evaluation/confusions.npz",
    }
    assert {a.path for a in client.list_artifacts(run.info.run_id, "failures")} == {"failures/index.html", "failures/summary.json"}
    dataset = run.inputs.dataset_inputs[0].dataset
    assert (dataset.name, dataset.digest) == ("scenes", "d1")
    assert run.data.tags["dvc.data/converted/scenes"] == "aa.dir" and run.data.tags["dvc.models/unet/model.safetensors"] == "bb"
    assert (run.data.tags["segpipe.git_revision"], run.data.tags["segpipe.git_dirty"]) == ("f00d", "true")
    names = [r.info.run_name for r in client.search_runs([run.info.experiment_id])]
    assert sorted(names) == ["comparison", "segnet", "unet"]

    before = state()
    assert set(before["versions"]) == {("segmenter", "1"), ("segmenter", "2")}
    assert "not better" in before["versions"]["segmenter", "1"]["segpipe.gate"]
    assert register(tmp_path, uri, "unet", "segnet", lineage=origin) == receipt
    assert register(tmp_path, uri, "unet", "segnet", lineage=origin, last=receipt) == receipt
    assert state() == before

    # The first clean revision that holds these files is noted, once.
    for revision in ("c1ea", "1a7e"):
        receipt = register(tmp_path, uri, "unet", "segnet", lineage=replace(origin, revision=revision, dirty=False), last=receipt)
        tags = client.get_run(run.info.run_id).data.tags
        assert (tags["segpipe.git_revision"], tags["segpipe.git_dirty"]) == ("c1ea", "false")


def test_nothing_in_a_registered_model_is_pickled(tmp_path: Path, uri: str) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    register(tmp_path, uri, "unet")
    files = [path for path in (tmp_path / ".servers/mlartifacts").rglob("*") if path.is_file()]
    models = [path for path in files if "/models/" in str(path)]
    assert {path.suffix for path in models} <= {".py", ".json", ".yaml", ".txt", ".safetensors", ""}
    assert [path.name for path in models if not path.suffix] == ["MLmodel"]
    for path in files:
        assert path.read_bytes()[:2] not in (b"\x80\x03", b"\x80\x04", b"\x80\x05"), f"{path} is a pickle"
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as arrays:
                assert all(arrays[name].dtype != object for name in arrays)


def test_champion_moves_only_when_it_is_earned(tmp_path: Path, uri: str, client: Any, state: State) -> None:
    workspace.add_experiment(tmp_path, "first", quality=0.7)
    register(tmp_path, uri, "first")
    workspace.add_experiment(tmp_path, "worse", quality=0.6, seed=1)
    receipt = register(tmp_path, uri, "first", "worse")
    assert receipt["champion"]["experiment"] == "first" and "not better" in receipt["champion"]["refusals"]["worse"]
    # The champion's row may be gone from params.yaml: what its run holds is enough to compare with.
    workspace.add_experiment(tmp_path, "better", quality=0.8, seed=2)
    receipt = register(tmp_path, uri, "worse", "better")
    assert (receipt["champion"]["experiment"], receipt["champion"]["decision"]) == ("better", "moved")
    assert client.get_model_version_by_alias("segmenter", "champion").tags["segpipe.experiment"] == "better"
    assert "takes the title" in state()["versions"]["segmenter", "3"]["segpipe.gate"]
    workspace.add_experiment(tmp_path, "elsewhere", quality=0.95, seed=3, digest="d2", prefix="j")
    receipt = register(tmp_path, uri, "elsewhere")
    assert receipt["champion"]["experiment"] == "better"
    assert "another test set" in receipt["champion"]["refusals"]["elsewhere"]
    before = state()
    assert register(tmp_path, uri, "elsewhere")["champion"]["refusals"] == receipt["champion"]["refusals"]
    assert state() == before


def test_a_champion_made_by_hand_is_left_alone(tmp_path: Path, uri: str, client: Any) -> None:
    client.create_registered_model("segmenter")
    model = client.create_logged_model("0", "by hand")
    client.create_model_version("segmenter", source=f"models:/{model.model_id}", model_id=model.model_id)
    client.set_registered_model_alias("segmenter", "champion", "1")
    workspace.add_experiment(tmp_path, "unet", quality=0.9)
    champion = register(tmp_path, uri, "unet")["champion"]
    assert champion["version"] == "1" and "by hand" in champion["refusals"]["unet"]


def test_each_dataset_has_its_own_name_and_champion(tmp_path: Path, uri: str) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    workspace.add_experiment(tmp_path, "unet-other", quality=0.6, seed=1, dataset="other", digest="d2", prefix="j")
    receipt = register(tmp_path, uri, "unet", "unet-other")
    champions = {name: champion["experiment"] for name, champion in receipt["champions"].items()}
    assert champions == {"segmenter": "unet", "segmenter-other": "unet-other"}
    assert receipt["champion"] == receipt["champions"]["segmenter"]


def test_the_same_model_under_a_new_row_is_no_new_version(tmp_path: Path, uri: str, state: State) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    workspace.add_experiment(tmp_path, "renamed", quality=0.7)
    receipt = register(tmp_path, uri, "unet", "renamed")
    assert receipt["experiments"]["unet"]["version"] == receipt["experiments"]["renamed"]["version"]
    assert len(state()["versions"]) == len(state()["models"]) == 1


def test_a_new_evaluation_updates_the_run(tmp_path: Path, uri: str, client: Any, state: State) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    first = register(tmp_path, uri, "unet")
    workspace.add_experiment(tmp_path, "unet", quality=0.75)
    second = register(tmp_path, uri, "unet", last=first)
    assert second["experiments"]["unet"]["run_id"] == first["experiments"]["unet"]["run_id"]
    scores = json.loads((tmp_path / "evaluations/unet/scores.json").read_text())
    assert client.get_run(second["experiments"]["unet"]["run_id"]).data.metrics["miou"] == scores["miou"]
    steps = [len(points) for (_, key), points in state()["history"].items() if key == "train_loss"]
    assert steps == [3] and len(state()["versions"]) == 1


def test_a_live_run_that_lost_its_server_is_taken_up(tmp_path: Path, uri: str, client: Any, state: State) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7, seed=4)
    start = {
        "uri": uri,
        "experiment": "elsewhere",
        "name": "unet",
        "fingerprint": "f",
        "params": {"train": {"lr": 0.1}},
        "tags": {},
    }
    assert writer.follow(start, [{"epoch": workspace.epoch_row(e, seed=4)} for e in (1, 2)]) is None
    other = {**start, "fingerprint": "another training of this row"}
    assert writer.follow(other, [{"epoch": workspace.epoch_row(1, seed=5)}]) is None
    receipt = register(tmp_path, uri, "unet")
    run = client.get_run(receipt["experiments"]["unet"]["run_id"])
    assert run.data.tags[writer.FINGERPRINT] == "f" and run.info.status == "FINISHED"
    assert [p.step for p in client.get_metric_history(run.info.run_id, "train_loss")] == [1, 2, 3]
    assert sum(tags.get(writer.EXPERIMENT) == "unet" for _, _, tags in state()["runs"].values()) == 2


def test_the_glance_sees_what_is_gone(tmp_path: Path, uri: str, client: Any) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    receipt = register(tmp_path, uri, "unet")

    def holds(address: str = uri) -> bool:
        return glance.holds(address, receipt, contents_tag=runs.CONTENTS, alias=registry.ALIAS)

    assert holds()
    assert not holds(f"sqlite:///{tmp_path}/nothing.db") and not (tmp_path / "nothing.db").exists()
    client.delete_registered_model_alias("segmenter", "champion")
    assert not holds()
    assert register(tmp_path, uri, "unet", last=receipt)["champion"]["decision"] == "first"
    assert holds()
    client.delete_run(receipt["experiments"]["unet"]["run_id"])
    assert not holds()


def test_a_dead_server_leaves_a_receipt_and_the_next_call_completes_it(tmp_path: Path, uri: str, state: State) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        receipt = register(tmp_path, f"http://127.0.0.1:{mute.getsockname()[1]}", "unet")
    assert not receipt["complete"] and "does not answer" in receipt["pending"] and receipt["experiments"] == {}
    assert register(tmp_path, uri, "unet", last=receipt)["complete"]
    assert len(state()["versions"]) == 1


def test_a_server_that_dies_on_the_way_is_no_error_and_a_real_error_is(
    tmp_path: Path, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace.add_experiment(tmp_path, "unet", quality=0.7)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("the upload broke off")

    monkeypatch.setattr(runs.packaging, "save_portable", broken)
    with pytest.raises(RuntimeError, match="broke off"):
        register(tmp_path, uri, "unet")
    answers = iter([None, "http://host does not answer"])
    monkeypatch.setattr(connection, "trouble", lambda _: next(answers))
    receipt = register(tmp_path, uri, "unet")
    assert not receipt["complete"] and receipt["pending"] == "http://host does not answer"
    monkeypatch.undo()
    assert register(tmp_path, uri, "unet")["complete"]


def test_the_stage_ends_well_without_a_server(tmp_path: Path) -> None:
    row = {"dataset": "scenes", "architecture": "unet", "options": workspace.OPTIONS, "loss": "cross_entropy"}
    params = {
        "seed": 0,
        "datasets": {"scenes": {"format": "scenes"}},
        "augment": {"policy": "none", "copies": 0},
        "train": {"epochs": 1, "batch_size": 1, "lr": 0.1},
        "experiments": {"unet": row},
        "evaluate": {},
        "explain": {},
        "compare": {"resamples": 200},
        "register": {"model_name": "segmenter", "gate": {"metric": "miou"}},
    }
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    workspace.add_experiment(tmp_path, "unet", quality=0.7)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        address = f"http://me:secret@127.0.0.1:{closed.getsockname()[1]}"
        environment = os.environ | {"MLFLOW_TRACKING_URI": address, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-X", "importtime", "-m", "stages.register"]
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "the next `dvc repro` completes it" in done.stdout and "secret" not in done.stdout
    receipt = json.loads((tmp_path / "registry.json").read_text())
    assert not receipt["complete"] and "cannot be reached" in receipt["pending"] and "secret" not in json.dumps(receipt)
    assert " mlflow" not in done.stderr, "MLflow was imported for a server that is not there"
