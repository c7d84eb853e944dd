"""Statistics in words that a reader can act on."""

from segpipe.resampling import PairResult
from segpipe.wording import p_words, points


def verdict(
    names: tuple[str, str],
    test: PairResult,
    *,
    p_holm: float,
    alpha: float,
    training_sds: tuple[float | None, float | None],
    seeds: tuple[int, int],
    p_seeds: float | None,
    more: str,
) -> str:
    """Whether the first of two models is better than the second, by how much, how sure, and what is known of training noise.

    `test` is of the first less the second, whose difference is not negative. `training_sds` are over so many `seeds`, None for
    one seed; `p_seeds` is None unless both models have several. `more` says what it would take to see a difference
    (`power.more_words`), and is said where there is no evidence of one.
    """
    a, b = names
    better = p_holm < alpha
    span = f"{100 * (1 - alpha):g} % {points(test.ci_low)} to {points(test.ci_high)}"
    noise = _seeds(seeds, training_sds)
    if better:
        text = f"{a} is better than {b} by {points(test.difference)} mIoU points ({span}), {p_words(p_holm)} after Holm, {noise}"
    elif test.spread.sd == 0 and test.difference == 0:
        text = f"No evidence of a difference between {a} and {b}: their scores are equal whichever images are drawn; {noise}"
    else:
        text = (
            f"No evidence of a difference between {a} and {b}"
            f" ({points(test.difference)} mIoU points, {span}, {p_words(p_holm)} after Holm); {more}; {noise}"
        )
    if p_seeds is not None and better and p_seeds >= alpha:
        text += f"; over seeds the difference is not established ({p_words(p_seeds)}), so other seeds may turn it round"
    elif p_seeds is not None:
        text += f"; over seeds {p_words(p_seeds)}"
    return text + "."


def _seeds(seeds: tuple[int, int], sds: tuple[float | None, float | None]) -> str:
    """ "one seed each: training noise is unknown", "3 seeds each (training sd 0.4 and 0.6 points)", "3 and 1 seeds (training sd 0.4
    points, and unknown)"."""
    if sds == (None, None):
        return "one seed each: training noise is unknown"
    if None not in sds:
        count = f"{seeds[0]} seeds each" if seeds[0] == seeds[1] else f"{seeds[0]} and {seeds[1]} seeds"
        return f"{count} (training sd {' and '.join(points(sd) for sd in sds if sd is not None)} points)"
    spreads = ["unknown" if sd is None else f"{points(sd)} points" for sd in sds]
    return f"{seeds[0]} and {seeds[1]} seeds (training sd {', and '.join(spreads)})"
