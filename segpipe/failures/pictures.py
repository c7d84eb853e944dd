"""The pictures of one explained region: the image, its labels, and the maps laid over it, all maps of one kind on one scale."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass

import cv2
import numpy as np

from segpipe.drawing import overlay
from segpipe.failures.explain import Explained
from segpipe.failures.grid import spread
from segpipe.failures.look import KINDS
from segpipe.failures.measures import EVIDENCE

SIDE = 300
"""Pixels of the longer side of a picture."""
QUALITY = 80
ZOOM_BELOW = 0.6
CONTEXT = 3.0
"""A zoomed view is this many times the region's box, where the image is larger than that."""
SMALLEST_VIEW = 128
RAMP = 8
FOR, AGAINST = (200, 30, 40), (30, 95, 190)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One picture of a card: its `data:` address, size in pixels, caption, and a description for those who cannot see it."""

    uri: str
    width: int
    height: int
    caption: str
    alt: str


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """The pictures of a region: `labels` (image, truth, prediction); for each kind of map the pair and the value at full
    colour; `margin` is the local map of the predicted class's logit less the true class's."""

    labels: list[Picture]
    margin: Picture
    maps: dict[str, list[Picture]]
    scales: dict[str, float]


def draw(
    explained: Explained,
    *,
    layer: str,
    statuses: Mapping[str, tuple[str, str]],
    true: str,
    predicted: str,
    palette: np.ndarray,
    ignore_index: int,
    side: int = SIDE,
) -> Pictures:
    """Draw one explained region; `true` and `predicted` are the names of its classes, `palette` is uint8 (K, 3), and
    `statuses` holds for each kind of map those of its pair."""
    image, region = explained.image, explained.region
    view = _view(region)
    zoomed = view != (slice(0, region.shape[0]), slice(0, region.shape[1]))
    part = image[view]
    size = _size(part.shape[:2], side)
    outline = _outline(region[view], size)
    labels = []
    if zoomed:
        whole = _size(region.shape, side)
        picture = _resized(image, whole)
        corners = [round(v * whole[i % 2] / region.shape[i % 2]) for i, v in enumerate(_corners(view))]
        cv2.rectangle(picture, (corners[1], corners[0]), (corners[3], corners[2]), (255, 255, 255), 2)
        labels.append(
            _picture(
                picture,
                "the image, with the part shown in the next pictures",
                "The whole image with a box around the region",
            )
        )
    base = _resized(part, size)
    labels.append(
        _picture(
            _drawn(base, outline),
            "image, region outlined",
            f"Image with the region of {true} predicted as {predicted} outlined",
        )
    )
    for name, mask, what in (("ground truth", explained.target, true), ("prediction", explained.prediction, predicted)):
        shown = cv2.resize(mask[view], (size[1], size[0]), interpolation=cv2.INTER_NEAREST_EXACT)
        tinted = overlay(base, shown, palette, ignore_index=ignore_index)
        labels.append(_picture(_drawn(tinted, outline), f"{name}: {what}", f"{name} over the image; the region is {what}"))
    size = _size(region.shape, side)
    grey, outline = _grey(_resized(image, size)), _outline(region, size)
    rows, columns = explained.answer.axes[layer]
    scales = {kind: scale_of(explained, layer=layer, kind=kind) for kind in KINDS}
    names = (true, predicted)
    maps = {kind: map_pair(explained, layer=layer, kind=kind, statuses=statuses[kind], names=names, side=side) for kind in KINDS}
    local = explained.answer.maps[layer]["hirescam"]
    # Maps are linear in the score, so this is the map of the difference of the two logits.
    margin = spread(local[1] - local[0], rows=rows, columns=columns, size=(region.shape[0], region.shape[1]))
    shown = np.zeros(region.shape, np.float32)
    shown[explained.answer.window] = (margin / (np.abs(local[1] - local[0]).max() or 1.0))[explained.answer.window]
    share = cv2.resize(shown, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
    decides = _picture(
        _drawn(_two_sided(grey, share), outline),
        f"what decides: red for {predicted}, blue for {true}",
        f"HiResCAM of the difference of the two logits, red where it speaks for {predicted}, blue where for {true}",
    )
    return Pictures(labels=labels, margin=decides, maps=maps, scales=scales)


def draw_matched(
    explained: Explained, *, layer: str, kind: str, statuses: tuple[str, str], names: tuple[str, str], side: int = SIDE
) -> list[Picture]:
    """The correct region matched to an error: outlined in its image, and its pair of maps of one kind on one scale."""
    size = _size(explained.region.shape, side)
    picture = _drawn(_resized(explained.image, size), _outline(explained.region, size))
    first = _picture(picture, f"a correct region of {names[0]}, outlined", f"Image with a correct region of {names[0]} outlined")
    return [first, *map_pair(explained, layer=layer, kind=kind, statuses=statuses, names=names, side=side)]


def scale_of(explained: Explained, *, layer: str, kind: str) -> float:
    """The value at full colour of a region's pair of maps: the higher one's maximum, 0 where neither is positive."""
    return max(0.0, float(explained.answer.maps[layer][kind].max()))


def map_pair(
    explained: Explained, *, layer: str, kind: str, statuses: tuple[str, str], names: tuple[str, str], side: int
) -> list[Picture]:
    """The maps of the true and of the predicted class over the whole image, on one scale."""
    region = explained.region
    size = _size(region.shape, side)
    grey, outline = _grey(_resized(explained.image, size)), _outline(region, size)
    rows, columns = explained.answer.axes[layer]
    scale = scale_of(explained, layer=layer, kind=kind)
    pictures = []
    for which, values, status in zip(names, np.maximum(explained.answer.maps[layer][kind], 0), statuses, strict=True):
        energy = spread(values, rows=rows, columns=columns, size=(region.shape[0], region.shape[1]))
        shown = np.zeros(region.shape, np.float32)
        shown[explained.answer.window] = energy[explained.answer.window]
        share = cv2.resize(shown / (scale or 1.0), (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        caption, alt = f"for {which}", f"{'Grad-CAM' if kind == 'gradcam' else 'HiResCAM'} of {which}"
        if status != EVIDENCE:
            caption, alt = f"{caption}: {status}", f"{alt}: {status}"
        pictures.append(_picture(_drawn(_heated(grey, share), outline), caption, alt))
    return pictures


def ramp() -> str:
    """The colours of the maps from 0 to full, as a CSS gradient over a medium grey."""
    values = np.linspace(0, 1, RAMP + 1, dtype=np.float32)[None]
    colours = _heated(np.full((1, RAMP + 1, 3), 150, np.uint8), values)[0]
    stops = ", ".join(f"rgb({r}, {g}, {b})" for r, g, b in colours.tolist())
    return f"linear-gradient(to right, {stops})"


def _heated(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`grey` (H, W, 3) under the colours of `share` (H, W) in 0..1; where it is 0 the picture stays as it is."""
    level = np.clip(share, 0, 1)
    heat = cv2.cvtColor(cv2.applyColorMap(np.rint(level * 255).astype(np.uint8), cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
    weight = (0.88 * level**0.6)[..., None]
    return np.rint(grey * (1 - weight) + heat * weight).astype(np.uint8)


def _two_sided(grey: np.ndarray, share: np.ndarray) -> np.ndarray:
    """`grey` (H, W, 3) tinted by `share` (H, W) in -1..1: FOR where it is positive, AGAINST where negative."""
    tint = np.where((share > 0)[..., None], np.array(FOR, np.float32), np.array(AGAINST, np.float32))
    weight = (0.88 * np.abs(np.clip(share, -1, 1)) ** 0.6)[..., None]
    return np.rint(grey * (1 - weight) + tint * weight).astype(np.uint8)


def _view(region: np.ndarray) -> tuple[slice, slice]:
    """The part of the image to show around a region, in the image's own proportions; the whole image unless zooming gains much."""
    rows, columns = np.flatnonzero(region.any(axis=1)), np.flatnonzero(region.any(axis=0))
    box = ((rows[0], rows[-1] + 1), (columns[0], columns[-1] + 1))
    wanted = [CONTEXT * (end - start) / side for (start, end), side in zip(box, region.shape, strict=True)]
    share = max(*wanted, SMALLEST_VIEW / max(region.shape))
    if share > ZOOM_BELOW:
        return slice(0, region.shape[0]), slice(0, region.shape[1])
    spans = []
    for (start, end), side in zip(box, region.shape, strict=True):
        length = max(1, round(share * side))
        first = int(np.clip((start + end) // 2 - length // 2, 0, side - length))
        spans.append(slice(first, first + length))
    return spans[0], spans[1]


def _corners(view: tuple[slice, slice]) -> tuple[int, int, int, int]:
    return view[0].start, view[1].start, view[0].stop, view[1].stop


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    factor = side / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _resized(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    shrinks = size[0] < image.shape[0]
    resized: np.ndarray = cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)
    return resized


def _grey(image: np.ndarray) -> np.ndarray:
    """A pale grey version, on which the colours of a map stand out."""
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return np.repeat((90 + grey * np.float32(0.55)).astype(np.uint8)[..., None], 3, axis=2)


def _outline(region: np.ndarray, size: tuple[int, int]) -> list[np.ndarray]:
    """The contours just outside of `region` on a picture of `size`, so that a thin region stays visible inside them."""
    shown = cv2.resize(region.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_AREA) > 0
    grown = cv2.dilate(shown.astype(np.uint8), np.ones((5, 5), np.uint8))
    return list(cv2.findContours(grown, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)[0])


def _drawn(picture: np.ndarray, outline: list[np.ndarray]) -> np.ndarray:
    result = picture.copy()
    cv2.drawContours(result, outline, -1, (0, 0, 0), 3)
    cv2.drawContours(result, outline, -1, (255, 255, 255), 1)
    return result


def _picture(pixels: np.ndarray, caption: str, alt: str) -> Picture:
    # WebP at the same quality is about half of a JPEG, and a page holds hundreds of pictures.
    done, data = cv2.imencode(".webp", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    assert done
    uri = f"data:image/webp;base64,{base64.b64encode(data.tobytes()).decode()}"
    return Picture(uri=uri, width=pixels.shape[1], height=pixels.shape[0], caption=caption, alt=alt)
