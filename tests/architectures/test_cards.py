"""Every network has a card in docs/architectures, and a row with its true number of parameters in the index."""

import re

import pytest
import torch

from segpipe import components
from tests.imports import ROOT

CARDS = ROOT / "docs" / "architectures"
ROWS = dict(
    re.findall(r"^\| \[(\w+)\]\(\1\.md\) \| \d{4} \| .+ \| ([\d,]+) \| stride \d+ \|$", (CARDS / "README.md").read_text(), re.M)
)


def test_the_index_lists_all_networks() -> None:
    assert sorted(ROWS) == components.names("architectures")


@pytest.mark.parametrize("name", components.names("architectures"))
def test_a_card_and_a_true_count(name: str) -> None:
    card = (CARDS / f"{name}.md").read_text()
    assert f"segpipe/architectures/{name}.py" in card
    with torch.device("meta"):
        model = components.load("architectures", name).build(num_classes=21)
    assert sum(parameter.numel() for parameter in model.parameters()) == int(ROWS[name].replace(",", ""))


@pytest.mark.parametrize("card", sorted(CARDS.glob("*.md")), ids=lambda path: path.name)
def test_links_lead_somewhere(card) -> None:
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", card.read_text()):
        assert (CARDS / target).exists(), f"{card.name} links to {target}"
