"""Which input sizes a network accepts, and how much smaller its answer is: the arithmetic behind padding and tiling."""

from dataclasses import dataclass


@dataclass(frozen=True)
class InputRule:
    """Each input side must be `offset` modulo `multiple` and at least `minimum`.

    Attributes:
        multiple: step between two allowed sides, in pixels.
        offset: remainder of an allowed side, 0 <= offset < multiple (U-Net's valid convolutions need 16k + 12).
        minimum: smallest allowed side, in pixels.
        margin: pixels that unpadded convolutions eat on each border: the answer covers side - 2 * margin pixels.
        fixed: the only allowed (height, width), for networks with fully connected layers.
        aligned: the answer's outermost cells are centred on the outermost pixels (sides of 8k + 1 answered by k + 1 cells), so that
            it is enlarged with aligned corners. Otherwise its cells cover the input edge to edge.
    """

    multiple: int = 1
    offset: int = 0
    minimum: int = 1
    margin: int = 0
    fixed: tuple[int, int] | None = None
    aligned: bool = False

    def __post_init__(self) -> None:
        assert self.multiple >= 1 and 0 <= self.offset < self.multiple, self
        assert self.minimum >= 1 and self.margin >= 0, self

    def padded(self, side: int) -> int:
        """The smallest allowed input side whose output covers `side` pixels; `fixed` is not looked at here."""
        assert side >= 1, side
        needed = max(side + 2 * self.margin, self.minimum)
        return needed + (self.offset - needed) % self.multiple

    def allows(self, height: int, width: int) -> bool:
        """Whether the network accepts an input of (height, width) as it is."""
        if self.fixed is not None:
            return (height, width) == self.fixed
        return all(s >= self.minimum and (s - self.offset) % self.multiple == 0 for s in (height, width))

    def check(self, height: int, width: int) -> None:
        """Raise ValueError, with the sizes to use instead, if the network does not accept (height, width)."""
        if self.allows(height, width):
            return
        if self.fixed is not None:
            raise ValueError(f"input of {height}x{width}: this network takes only {self.fixed[0]}x{self.fixed[1]}")
        larger = tuple(self._next(side) for side in (height, width))
        raise ValueError(
            f"input of {height}x{width}: each side must be {self.offset} modulo {self.multiple} and at least"
            f" {self.minimum}. Pad it to {larger[0]}x{larger[1]}."
        )

    def _next(self, side: int) -> int:
        needed = max(side, self.minimum)
        return needed + (self.offset - needed) % self.multiple
