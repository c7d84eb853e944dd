"""Statistics in words that a reader can act on, and numbers written alike everywhere."""

from segpipe.resampling import PairResult


def verdict(
    names: tuple[str, str],
    test: PairResult,
    *,
    p_holm: float,
    alpha: float,
    training_sds: tuple[float | None, float | None],
    seeds: tuple[int, int],
    p_seeds: float | None,
) -> str:
    """Whether the first of two models is better than the second, by how much, how sure, and what is known of training noise.

    `test` is of the first less the second, whose difference is not negative. `training_sds` are over so many `seeds`, None for
    one seed; `p_seeds` is None unless both models have several.
    """
    a, b = names
    better = p_holm < alpha
    span = f"{100 * (1 - alpha):g} % {points(test.ci_low)} to {points(test.ci_high)}"
    if better:
        text = f"{a} is better than {b} by {points(test.difference)} mIoU points ({span}), {p_words(p_holm)} after Holm"
    else:
        text = (
            f"No evidence of a difference between {a} and {b}"
            f" ({points(test.difference)} mIoU points, {span}, {p_words(p_holm)} after Holm)"
        )
    if training_sds == (None, None):
        return f"{text}; training noise unknown (one seed each)."
    rows = list(zip(names, training_sds, seeds, strict=True))
    noise = [f"of {name} sd {points(sd)} points over {count} seeds" for name, sd, count in rows if sd is not None]
    noise += [f"of {name} unknown (one seed)" for name, sd, _ in rows if sd is None]
    text += "; training noise " + ", ".join(noise)
    if p_seeds is not None and better and p_seeds >= alpha:
        text += f"; over seeds the difference is not established ({p_words(p_seeds)}), so other seeds may turn it round"
    elif p_seeds is not None:
        text += f"; over seeds {p_words(p_seeds)}"
    return text + "."


def points(value: float) -> str:
    """A score or a difference of scores in 0..1 as points with one decimal; `-0.0` is written `0.0`."""
    return f"{round(100 * value, 1) + 0.0:.1f}"


def p_words(p: float) -> str:
    """`p < .001`, `p = .003`, `p = .040`, `p = .21`, `p = 1`: as many digits as matter."""
    if p < 0.001:
        return "p < .001"
    text = f"{p:.3f}" if p < 0.0995 else f"{p:.2f}"
    return "p = 1" if float(text) == 1 else f"p = {text.lstrip('0')}"
