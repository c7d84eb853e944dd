"""The training loss: the pixel loss on every output, and the terms that a network brings."""

from collections.abc import Callable, Mapping
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from segpipe.tasks import semantic

TARGET = torch.tensor([[[0, 1], [1, 255]]])
OUTPUTS = {"out": torch.zeros(1, 2, 2, 2), "aux": torch.full((1, 2, 2, 2), 3.0)}


class Sum(nn.Module):
    """A pixel loss that can be computed in the head: the sum of the logits."""

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        return logits.sum()


def loss(terms: Callable[..., dict[str, Tensor]] | None, weights: dict[str, float], outputs: dict[str, Tensor] = OUTPUTS) -> float:
    architecture = SimpleNamespace() if terms is None else SimpleNamespace(loss_terms=terms)
    criterion = semantic.build_criterion(Sum(), architecture=architecture, ignore_index=255)
    return semantic.loss(outputs, TARGET, criterion=criterion, loss_weights=weights).item()


def test_the_pixel_loss_alone_stays_as_it_is() -> None:
    pixel_loss = Sum()
    assert semantic.build_criterion(pixel_loss, architecture=SimpleNamespace(), ignore_index=255) is pixel_loss
    assert loss(None, {"out": 1.0, "aux": 0.5}) == 12.0


def test_an_own_term_takes_the_place_of_the_pixel_loss() -> None:
    def terms(
        outputs: Mapping[str, Tensor], target: Tensor, *, criterion: Callable[..., Tensor], ignore_index: int
    ) -> dict[str, Tensor]:
        assert torch.equal(target, TARGET) and ignore_index == 255
        return {"aux": criterion(-outputs["aux"], target)}

    assert loss(terms, {"out": 1.0, "aux": 0.5}) == -12.0


def test_an_own_term_of_another_name_is_added() -> None:
    assert loss(lambda *_, **__: {"extra": torch.tensor(2.0)}, {"out": 1.0, "aux": 0.5, "extra": 10.0}) == 32.0


def test_a_network_may_have_no_term_for_what_it_answers() -> None:
    terms = lambda outputs, *_, **__: {"aux": torch.tensor(2.0)} if "aux" in outputs else {}  # noqa: E731
    assert loss(terms, {"out": 1.0, "aux": 0.5}, {"out": torch.ones(1, 2, 2, 2)}) == 8.0


def test_weight_zero_leaves_an_output_out() -> None:
    assert loss(None, {"out": 1.0, "aux": 0.0}) == 0.0


@pytest.mark.parametrize("terms", [None, lambda *_, **__: {"extra": torch.tensor(2.0)}])
def test_what_has_no_weight_is_named(terms: Callable[..., dict[str, Tensor]] | None) -> None:
    with pytest.raises(ValueError, match=f"'{'aux' if terms is None else 'extra'}' has no weight.*LOSS_WEIGHTS"):
        loss(terms, {"out": 1.0} if terms is None else {"out": 1.0, "aux": 1.0})


def test_the_criterion_moves_with_its_pixel_loss() -> None:
    pixel_loss = nn.CrossEntropyLoss(weight=torch.ones(2))
    criterion = semantic.build_criterion(pixel_loss, architecture=SimpleNamespace(loss_terms=lambda *_: {}), ignore_index=255)
    assert criterion.to(torch.float64).pixel_loss.weight.dtype == torch.float64
    assert criterion.double()(OUTPUTS["out"].double(), TARGET.clamp(max=1)) == pytest.approx(0.6931471805599453)
