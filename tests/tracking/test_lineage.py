"""Git's revision and DVC's digests, and their absence."""

import subprocess
from pathlib import Path

import yaml

from segpipe.tracking.lineage import read_lineage

LOCK = {
    "schema": "2.0",
    "stages": {
        "convert@scenes": {"cmd": "x", "outs": [{"path": "data/converted/scenes", "md5": "aa.dir"}]},
        "convert@other": {"cmd": "x", "outs": [{"path": "data/converted/other", "md5": "bb.dir"}]},
        "train@unet": {"cmd": "x", "outs": [{"path": "models/unet/model.safetensors", "md5": "cc"}]},
        "train@unet-seed1": {"cmd": "x", "outs": [{"path": "models/unet-seed1/model.safetensors", "md5": "dd"}]},
        "explain@unet": {"cmd": "x", "outs": [{"path": "failures/unet", "md5": "ee.dir"}]},
        "validate": {"cmd": "x", "outs": [{"path": ".cache/valid.txt", "hash": "md5", "md5": "ff"}]},
        "nothing": {"cmd": "x"},
    },
}


def git(root: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@localhost"]
    return subprocess.run(
        ["git", "-C", str(root), *identity, *arguments], check=True, capture_output=True, text=True
    ).stdout.strip()


def test_tags_name_the_revision_and_only_what_belongs_to_the_run(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(LOCK))
    (tmp_path / "registry.json").write_text("{}")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-q", "-m", "one")
    expected = {
        "dvc.data/converted/scenes": "aa.dir",
        "dvc.models/unet/model.safetensors": "cc",
        "dvc.failures/unet": "ee.dir",
        "segpipe.git_revision": git(tmp_path, "rev-parse", "HEAD"),
        "segpipe.git_dirty": "false",
    }
    (tmp_path / "registry.json").write_text("{ }")  # what the stage itself writes does not make the tree dirty
    assert read_lineage(tmp_path).tags(experiment="unet", dataset="scenes") == expected
    (tmp_path / "dvc.lock").write_text(yaml.safe_dump(LOCK) + "\n# edited\n")
    assert read_lineage(tmp_path).tags(experiment="unet", dataset="scenes")["segpipe.git_dirty"] == "true"


def test_without_git_and_dvc_there_are_no_tags(tmp_path: Path) -> None:
    lineage = read_lineage(tmp_path)
    assert lineage.revision is None and not lineage.dirty
    assert lineage.tags(experiment="unet", dataset="scenes") == {}
