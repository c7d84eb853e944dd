"""Where a result came from: the git revision, and what DVC recorded about the data and the model."""

import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


@dataclass(frozen=True, kw_only=True)
class Lineage:
    """`revision` is None without git. `outs` maps each path that a stage wrote to the digest in dvc.lock."""

    revision: str | None
    dirty: bool
    outs: Mapping[str, str]

    def tags(self, *, experiment: str, dataset: str) -> dict[str, str]:
        """The MLflow tags of one run: revision, and the digests of its data, model, evaluation and reports."""
        places = [f"{room}/{experiment}/" for room in ("models", "evaluations", "failures", "reports")]
        places += [f"data/{room}/{dataset}/" for room in ("raw", "converted", "augmented")]
        tags = {f"dvc.{path}": md5 for path, md5 in self.outs.items() if f"{path}/".startswith(tuple(places))}
        if self.revision:
            tags |= {"segpipe.git_revision": self.revision, "segpipe.git_dirty": str(self.dirty).lower()}
        return tags


def read_lineage(root: Path) -> Lineage:
    """The lineage of the workspace `root`. A missing git, repository or dvc.lock leaves its part empty."""
    revision = _git(root, "rev-parse", "HEAD")
    # registry.json is written by the very stage that asks.
    changed = _git(root, "status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)registry.json")
    lock = root / "dvc.lock"
    document = yaml.safe_load(lock.read_text()) if lock.exists() else {}
    outs = {
        out["path"]: out["md5"]
        for stage in (document.get("stages") or {}).values()
        for out in stage.get("outs", [])
        if "md5" in out
    }
    return Lineage(revision=revision or None, dirty=bool(changed), outs=outs)


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
    except FileNotFoundError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None
