"""The flow's order is DVC's."""

import pytest

from flows.graph import read_graph, sort
from tests.imports import ROOT


def test_sorting_puts_every_stage_after_what_it_waits_for() -> None:
    waits = {"c": {"a", "b"}, "b": {"a"}, "a": set(), "d": {"c"}}
    assert list(sort(waits)) == ["a", "b", "c", "d"]
    assert sort(waits) == waits


def test_a_folder_without_a_pipeline_is_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="`dvc dag` failed"):
        read_graph(tmp_path)


def test_the_repository_is_readable() -> None:
    assert "register" in read_graph(ROOT)
