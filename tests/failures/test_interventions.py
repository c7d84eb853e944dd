"""Permutations against exact answers, the parts of an intervention one by one."""

from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from segpipe.failures import donors
from segpipe.failures.associations import associate
from segpipe.failures.attribute_words import remedy, words
from segpipe.failures.attributes import FEATURES, collect
from segpipe.failures.interventions import FEWEST, intervene, sign_flip_p
from segpipe.failures.permutation import permutation_test
from tests.failures.toy_scenes import CHEST, CRATE, FLAG, NAMES, SIZE, Judge, context_of, write_split


@given(st.lists(st.integers(-24, 24).map(lambda i: i / 8), min_size=1, max_size=8))
@settings(max_examples=40, deadline=None)
def test_sign_flips_are_all_of_them(values: list[float]) -> None:
    flips = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in product((-1, 1), repeat=len(values))]
    assert sign_flip_p(np.array(values)) == pytest.approx(np.mean([f >= abs(sum(values)) - 1e-9 for f in flips]), abs=1e-12)


def test_sign_flips_of_many_values_are_drawn() -> None:
    values = np.random.default_rng(0).normal(0.5, 1, 30)
    assert 0.0001 <= sign_flip_p(values) < 0.05
    assert sign_flip_p(values - values.mean()) == 1


def test_the_permutation_test_is_exact_where_all_permutations_can_be_counted() -> None:
    """Six units of one item: 720 permutations, of which the test draws 9,990."""
    y, x = np.array([1.0, 1, 0, 1, 0, 0]), np.array([0.0, 1, 0, 0, 1, 1])
    found = permutation_test(
        (y - y.mean())[:, None], x[:, None].astype(np.float32), np.array([0]), np.arange(6), attributes=1, seed=0
    )
    drawn = np.array([(y - y.mean()) @ x[list(order)] for order in permutations(range(6))])
    exact = (np.abs(drawn) >= abs((y - y.mean()) @ x) - 1e-9).mean()
    assert found.p[0, 0] == pytest.approx(exact, abs=0.05)
    assert found.strength[0, 0] == pytest.approx(((y - y.mean()) @ x - drawn.mean()) / drawn.std(), abs=0.1)


def test_segments_of_one_image_count_together() -> None:
    """Twelve images of eight equal segments are twelve observations: what would be certain for 96 of them is chance."""
    y, x = np.array([[1.0, 1, 1, 1, 0, 0, 0, 0, 1, 0, 1, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 0]])
    args = {"attribute": np.array([0]), "attributes": 1, "seed": 0}
    long_y, long_x = np.repeat(y - y.mean(), 8)[:, None], np.repeat(x, 8)[:, None].astype(np.float32)
    alone = permutation_test(long_y, long_x, units=np.arange(96), **args)
    together = permutation_test(long_y, long_x, units=np.repeat(np.arange(12), 8), **args)
    assert alone.p[0, 0] < 0.001 < 0.02 < together.p[0, 0]


def test_p_values_of_unrelated_outcomes_are_uniform() -> None:
    """Clustered outcomes, attributes of images and of items, units of different sizes: p <= x in a share x of 400 tests."""
    rng = np.random.default_rng(4)
    p = []
    for seed in range(20):
        units = np.repeat(np.arange(40), rng.integers(1, 6, 40))
        y = (rng.random(len(units)) < rng.choice([0.05, 0.7], 40)[units]).astype(float)
        values = np.where(np.arange(20) < 10, rng.random((40, 20))[units], rng.random((len(units), 20)))
        cells = np.concatenate([values < cut for cut in (0.25, 0.5, 0.75)], axis=1).astype(np.float32)
        attribute = np.tile(np.arange(20), 3)
        p += list(permutation_test((y - y.mean())[:, None], cells, attribute, units, attributes=20, seed=seed).p[0])
    for level in (0.05, 0.2, 0.5):
        assert np.mean(np.array(p) <= level) == pytest.approx(level, abs=3.5 * np.sqrt(level * (1 - level) / 400))


def test_a_pasted_object_is_unchanged_and_its_surroundings_are_the_lenders() -> None:
    rng = np.random.default_rng(0)
    image, lender = rng.integers(0, 256, (2, *SIZE, 3), dtype=np.uint8)
    mask = np.zeros(SIZE, bool)
    mask[10:20, 30:45] = True
    result = donors.paste(image, mask, lender)
    np.testing.assert_array_equal(result[mask], image[mask])
    far = np.ones(SIZE, bool)
    far[10 - 5 : 20 + 5, 30 - 5 : 45 + 5] = False
    np.testing.assert_array_equal(result[far], lender[far])
    assert not np.array_equal(result[5:25, 25:50], lender[5:25, 25:50])
    assert donors.paste(image, mask, np.zeros((30, 90, 3), np.uint8)).shape == image.shape


def test_a_filled_class_looks_like_what_surrounds_it() -> None:
    image = np.full((*SIZE, 3), 60, np.uint8)
    hole, keep = np.zeros((2, *SIZE), bool)
    hole[5:15, 5:60], keep[20:30, 20:30] = True, True
    image[hole], image[keep] = 250, 200
    result = donors.fill(image, hole, keep)
    np.testing.assert_array_equal(result[keep], 200)
    assert (result[8:12, 8:57] == 60).all(), "the kept object does not leak into the hole"
    np.testing.assert_array_equal(donors.fill(image, np.zeros(SIZE, bool), keep), image)
    over = np.zeros(SIZE, bool)
    over[24:26] = True  # a rod that lies over the kept object
    image[over] = 0
    result = donors.fill(image, over, keep & ~over)
    assert (result[24:26, 20:30] == 0).all() and (result[24:26, 40:] == 60).all(), "what touches the object stays"


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory):
    return write_split(tmp_path_factory.mktemp("toy"), images=48, clear=0.7)


def strongest(context, attribute: str, true: int, predicted: int):
    attributes = collect(context)
    found, _ = associate(attributes.segments, attributes.names, num_classes=4, seed=0)
    return attributes, next(one for one in found if (one.attribute, one.true, one.predicted) == (attribute, true, predicted))


def test_lenders_have_the_cause_and_have_it_not(split) -> None:
    context = context_of(split, Judge("ground"))
    attributes, one = strongest(context, "around/red_green", CHEST, CRATE)
    assert one.side == "low" and one.rate > 0.9 and one.rate_else < 0.1
    whole = attributes.grids[..., FEATURES.index("red_green")].mean(axis=(1, 2))
    rng = np.random.default_rng(0)
    boxes = np.array([[0.1, 0.1, 0.5, 0.5]])
    for image in range(8):
        lent = donors.lenders(attributes, context.units, one, image=image, boxes=boxes, rng=rng)
        if lent is not None:
            assert image not in lent and whole[lent[0]] < 0 < whole[lent[1]]
    one_unit = np.zeros(len(split), np.int64)
    assert donors.lenders(attributes, one_unit, one, image=0, boxes=boxes, rng=rng) is None


def test_the_effect_has_the_networks_own_size(split) -> None:
    """Judged by the ground, the margin of crate over chest is 6 tanh(...) logits on green and the opposite on red."""
    by_ground, by_object = Judge("ground"), Judge("object")
    context = context_of(split, by_ground)
    attributes, one = strongest(context, "around/red_green", CHEST, CRATE)
    before = by_ground.passes
    (effect,) = intervene(context, attributes, [one], passes=40)
    assert by_ground.passes - before <= 40
    assert effect is not None and effect.images >= FEWEST
    assert effect.low <= effect.change <= effect.high < -8 and abs(effect.placebo) < 1.5 and effect.p < 0.01
    assert effect.called == (1, 1, 0)
    other = context_of(split, by_object, predictions={name: context.predictions[name] for name in split.ids})
    (nothing,) = intervene(other, attributes, [one], passes=40)
    assert nothing is not None and abs(nothing.change) < 0.5 and abs(nothing.placebo) < 0.5
    assert intervene(context, attributes, [one], passes=3 * FEWEST - 1) == [None]


def test_a_class_that_misleads_by_its_presence_is_filled(split) -> None:
    context = context_of(split, Judge("flag"))
    attributes, one = strongest(context, f"with/{FLAG}", CHEST, CRATE)
    (effect,) = intervene(context, attributes, [one], passes=40)
    assert effect is not None and effect.kind == "fill"
    assert effect.high < -8 and abs(effect.placebo) < 1
    attributes, absent = strongest(context, f"with/{FLAG}", CRATE, CHEST)
    assert absent.side == "low"
    assert intervene(context, attributes, [absent], passes=40) == [None], "an absence cannot be filled"


def test_groups_are_attributes_in_words(split) -> None:
    """Every other image is of the night, and there all boxes are called crates."""
    context = context_of(split, Judge("object"))
    attributes = collect(context)
    table = attributes.segments.copy()
    night = table["image"].to_numpy() % 2 == 1
    table["group"] = np.where(night, "night", "day").astype(object)
    table["confused"] = np.where(night & (table["class"] == CHEST), CRATE, -1)
    table["wrong"] = (table["confused"] >= 0).astype(float)
    found, _ = associate(table, ["group"], num_classes=4, seed=0)
    (one,) = (one for one in found if one.predicted == CRATE)
    assert (one.side, one.cut, one.rate, one.rate_else) == ("is", "night", 1, 0)
    assert words("group", one.side, NAMES, "night") == ("group of the image", "in the group night")
    grouped = replace(attributes, segments=table, names=("group",))
    boxes = np.array([[0.1, 0.1, 0.5, 0.5]])
    lent = donors.lenders(grouped, context.units, one, image=1, boxes=boxes, rng=np.random.default_rng(0))
    assert lent is not None and lent[0] % 2 == 1 and lent[1] % 2 == 0


def test_what_can_be_changed() -> None:
    assert (
        remedy("around/texture", "low", CRATE) == remedy("image/contrast", "high", CRATE) == remedy("group", "is", CRATE) == "swap"
    )
    assert remedy(f"with/{FLAG}", "high", CRATE) == remedy(f"beside/{FLAG}", "high", CRATE) == "fill"
    assert remedy(f"with/{FLAG}", "low", CRATE) is None
    assert remedy(f"beside/{CRATE}", "high", CRATE) is None, "a neighbour's evidence spills over, bias or not"
    assert remedy("object/size", "low", CRATE) is remedy("image/classes", "low", CRATE) is None
