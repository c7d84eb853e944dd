"""What the policies `light` and `strong` are made of. The only file that imports albumentations.

Three of its habits are undone here: at import it asks a server for its newest version; `Compose.set_random_seed` gives every
transform the same stream, so that those with equal probability always fire together; and masks get label 0, a class, beyond
the image's edge.
"""

import hashlib
import os
import sys
from typing import Any

# A write, not a read: nothing here depends on the environment. Without it the import below blocks on a request to the internet.
os.environ["NO_ALBUMENTATIONS_UPDATE"] = "1"
# Its tensor part, unused here, imports torch, which takes every process several times longer than all the rest. A None makes
# that import fail, which albumentations takes for a machine without torch.
sys.modules["albumentations.pytorch"] = None  # type: ignore[assignment]

import albumentations as A  # noqa: E402
import cv2  # noqa: E402
import numpy as np  # noqa: E402
from albumentations.core.type_definitions import Targets  # noqa: E402

del sys.modules["albumentations.pytorch"]


def build(name: str, *, ignore_index: int) -> A.Compose:
    """The transforms of policy `light` or `strong`. Unknown arguments raise here instead of being dropped (`strict`)."""
    steps = {"light": _light, "strong": _strong}[name](ignore_index)
    return A.Compose(steps, strict=True, seed=0)


def draw(
    compose: A.Compose, image: np.ndarray, mask: np.ndarray, layers: np.ndarray, *, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One draw from `compose` decided by `seed` alone. Shapes and dtypes as in `Policy.apply_with_layers`."""
    for number, step in enumerate(compose.transforms):
        digest = hashlib.sha256(f"{seed}/{number}".encode()).digest()
        step.set_random_seed(int.from_bytes(digest[:8], "big"))
    data: dict[str, Any] = {"image": image, "mask": mask}
    if len(layers):
        data["masks"] = layers
    moved = compose(**data)
    # A draw that changes nothing hands the caller's own arrays back.
    return tuple(
        new.copy() if np.shares_memory(new, old) else new
        for new, old in ((moved["image"], image), (moved["mask"], mask), (moved.get("masks", layers), layers))
    )


def _light(ignore_index: int) -> list[A.BasicTransform]:
    return [
        A.HorizontalFlip(p=0.5),
        MirroredAffine(scale=(0.9, 1.1), rotate=(-10, 10), translate_percent=(-0.05, 0.05), fill_mask=ignore_index, **GEOMETRY),
        A.ColorJitter(brightness=(0.85, 1.15), contrast=(0.85, 1.15), saturation=(0.85, 1.15), hue=(-0.02, 0.02), p=0.8),
    ]


def _strong(ignore_index: int) -> list[A.BasicTransform]:
    return [
        A.HorizontalFlip(p=0.5),
        MirroredAffine(
            scale=(0.85, 1.4),
            rotate=(-20, 20),
            shear=(-8, 8),
            translate_percent=(-0.06, 0.06),
            fill_mask=ignore_index,
            **GEOMETRY,
        ),
        Elastic(fill_mask=ignore_index, p=0.5),
        A.ColorJitter(brightness=(0.6, 1.4), contrast=(0.6, 1.4), saturation=(0.5, 1.5), hue=(-0.06, 0.06), p=0.9),
        A.GaussianBlur(blur_limit=0, sigma_limit=(0.3, 1.5), p=0.3),
        A.GaussNoise(std_range=(0.01, 0.06), p=0.5),
    ]


GEOMETRY: dict[str, Any] = {
    "keep_ratio": True,
    "interpolation": cv2.INTER_LINEAR,
    "mask_interpolation": cv2.INTER_NEAREST,
    "border_mode": cv2.BORDER_REFLECT_101,
    "p": 1.0,
}


class MirroredAffine(A.Affine):
    """An affine map that mirrors the image beyond its edge, while masks get `fill_mask` there."""

    def apply_to_mask(self, mask: np.ndarray, matrix: np.ndarray, output_shape: tuple[int, int], **_: Any) -> np.ndarray:
        size = (int(output_shape[1]), int(output_shape[0]))
        return cv2.warpAffine(
            mask, matrix[:2], size, flags=cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=self.fill_mask
        )


class Elastic(A.DualTransform):
    """U-Net's elastic deformation (Ronneberger et al. 2015, section 3.1; arXiv 1505.04597), which albumentations lacks.

    Displacement vectors on a coarse 3 x 3 grid, each component normal with a standard deviation of `std` pixels, are made
    dense by bicubic interpolation. The image is sampled linearly and mirrored at its edges; masks take the nearest label,
    and `fill_mask` outside. On images with a side below 25 * `std` the deviation is a 25th of that side, because the paper's 10
    pixels (on tiles of about 500) would fold a small image over itself.
    """

    _targets = (Targets.IMAGE, Targets.MASK)

    def __init__(self, *, std: float = 10.0, fill_mask: int = 255, p: float = 0.5) -> None:
        super().__init__(p=p)
        self.std, self.fill_mask = std, fill_mask

    def get_params_dependent_on_data(self, params: dict[str, Any], data: dict[str, Any]) -> dict[str, Any]:
        height, width = params["shape"][:2]
        std = min(self.std, min(height, width) / 25)
        return {"field": elastic_field(height, width, std=std, rng=self.random_generator)}

    def apply(self, img: np.ndarray, field: np.ndarray, **_: Any) -> np.ndarray:
        return cv2.remap(img, field, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)

    def apply_to_mask(self, mask: np.ndarray, field: np.ndarray, **_: Any) -> np.ndarray:
        return cv2.remap(mask, field, None, cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT, borderValue=self.fill_mask)


def elastic_field(height: int, width: int, *, std: float, rng: np.random.Generator) -> np.ndarray:
    """float32 (height, width, 2): the (x, y) that each pixel is sampled from."""
    displacement = cv2.resize(rng.normal(0.0, std, (3, 3, 2)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    y, x = np.mgrid[:height, :width].astype(np.float32)
    return displacement + np.stack([x, y], axis=-1)
