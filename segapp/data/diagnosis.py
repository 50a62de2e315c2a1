"""Says what most often lies behind masks that do not fit their classes, and what to do: for one mask, or for many."""

import math
from collections.abc import Collection
from pathlib import Path

from segapp.base.classes import IGNORE_INDEX
from segapp.base.mask_format import mask_format

MANY = 8
"""Wrong values or colours from which they are blends rather than a forgotten class."""

BLURRED = (
    "the masks were resized smoothly or drawn with anti-aliasing, or a JPEG has changed them: make them again by the "
    "nearest pixel, without anti-aliasing, and save them as PNG"
)
LIST_THEM = "list them in classes.yaml, or say there what all others become (others: ignore, or a class)"


def lossy_format(mask: Path) -> str:
    """The name of the file's format if that changes values when it is saved, else empty."""
    return mask_format(mask).lossy


def diagnose_values(
    values: Collection[int],
    listed: Collection[int],
    *,
    number: int | None = None,
    lossy: str = "",
    blurred: bool = False,
) -> str:
    """The likely reason why masks hold label values that are not `listed`, and what to do.

    Args:
        values: every value of the mask, or of all masks with such values.
        listed: the values of classes and of ignored pixels.
        number: of classes, where the file of classes names their values.
        lossy: the format of most of these masks if it changes values. blurred: most of them have mixed edges.
    """
    present = {*values} - ({IGNORE_INDEX} & {*listed})
    wrong, classes = present - {*listed}, {*listed} - {IGNORE_INDEX}
    top = max(classes, default=0)
    objects = sorted(present - {0})
    step = math.gcd(*objects)
    if lossy:
        return f"{lossy} changes values: save masks as PNG"
    if blurred:
        return f"they lie between the labels, at the edges: {BLURRED}"
    if number is not None and number <= top and len(objects) > 1 and present - {IGNORE_INDEX} <= {*range(number)}:
        return (
            f"they look like class indices, 0 to {number - 1} and {IGNORE_INDEX} for ignored pixels (Cityscapes' "
            "labelTrainIds?), where classes.yaml names other values: take the masks that it means (data.mask_ending), "
            "or a plain list of class names"
        )
    if wrong == {0}:
        return "0 often means not labelled: name it as a class, or in ignore"
    if objects in ([1], [IGNORE_INDEX]) or (0 in present and len(objects) == 1 and wrong != {top + 1}):
        (value,) = objects
        return f"0 and {value}, a binary mask? classes.yaml can say so: values: {{background: 0, NAME: {value}}}"
    if wrong == {IGNORE_INDEX}:
        return f"{IGNORE_INDEX} often means not labelled: name it in ignore"
    if wrong == {top + 1}:
        return (
            f"off by one? values that count from 1 need 1 subtracted (but not from {IGNORE_INDEX}); "
            f"else the class of {top + 1} is not listed"
        )
    if len(objects) > 1 and step > 1 and objects[-1] // step <= top:
        return f"multiples of {step}, as if spread out to be seen? divide them by {step}"
    if len(wrong) > MANY:
        return f"with {len(wrong)} such values: a colour mask turned grey, or one resized with smooth edges?"
    return f"classes that are missing, or colours turned grey? {LIST_THEM}; colours go under colours:"


def diagnose_colour(
    mask: Path, colour: tuple[int, int, int], number: int, listed: Collection[tuple[int, int, int]]
) -> str:
    """The likely reason why a mask holds `number` colours that are not `listed`, and what to do.

    Args:
        colour: the first of them, (red, green, blue).
        listed: the colours of classes and of ignored pixels.
    """
    if lossy := lossy_format(mask):
        return f"{lossy} changes colours: save masks as PNG"
    if colour[::-1] in listed:
        return "red and blue changed places? colours are [red, green, blue]"
    if number > MANY:
        return f"with {number} such colours: edges smoothed by resizing? others: ignore leaves them out"
    if len(set(colour)) == 1:
        return f"{LIST_THEM}; grey values go under values:"
    return LIST_THEM
