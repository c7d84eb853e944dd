"""Numbers in words, written alike everywhere."""


def points(value: float) -> str:
    """A score or a difference of scores in 0..1 as points with one decimal; `-0.0` is written `0.0`."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def p_words(p: float) -> str:
    """`p < .001`, `p = .003`, `p = .040`, `p = .21`, `p = 1`: as many digits as matter."""
    if p < 0.001:
        return "p < .001"
    text = f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
    return "p = 1" if float(text) == 1 else f"p = {text.lstrip('0')}"
