"""Render the self-contained HTML reports: Jinja2 with escaping always on, pictures embedded, nothing fetched from a network."""

import base64
from pathlib import Path
from typing import Any

import cv2
import jinja2
import numpy as np

_ENVIRONMENT = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def render(template: str, **context: Any) -> str:
    """The HTML text of `segpipe/pages/<template>` filled with `context`; a name missing from it raises UndefinedError."""
    return _ENVIRONMENT.get_template(template).render(**context)


def data_uri(image: np.ndarray, *, jpeg: bool = False) -> str:
    """A `data:` address of an image uint8 (H, W, 3) RGB: PNG (exact; for labels), or JPEG where `jpeg` (small; for photographs)."""
    assert image.dtype == np.uint8 and image.ndim == 3, f"{image.dtype} {image.shape} is no RGB image"
    options = [cv2.IMWRITE_JPEG_QUALITY, 88] if jpeg else []
    done, data = cv2.imencode(".jpg" if jpeg else ".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)
    assert done
    kind = "jpeg" if jpeg else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"


def figure_uri(svg: str) -> str:
    """A `data:` address of an SVG drawing's text, such as matplotlib writes."""
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode()}"
