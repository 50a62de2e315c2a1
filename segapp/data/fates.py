"""What became of annotations when masks were drawn from them: an annotation that vanishes is told, with its reason."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

Fate = Literal[
    "drawn", "crowd", "normalised", "few_points", "outside", "empty", "no_outline", "hidden", "left_out", "not_kept"
]
"""Of one annotation, in the order in which they are told."""

TOLD: dict[Fate, str] = {
    "crowd": "became void: iscrowd is 1",
    "normalised": "drew nothing, or one pixel: their coordinates are 0 to 1, not pixels",
    "few_points": "drew nothing: no polygon of theirs has three points",
    "outside": "drew nothing: they lie outside of their image",
    "empty": "drew nothing: they enclose no pixel",
    "no_outline": "drew nothing: they have no outline, at most a box",
    "hidden": "are hidden: smaller ones of other classes cover them",
    "left_out": "were passed over: no class takes their category",
    "not_kept": "were passed over: their image has too few pixels of the classes (data.min_pixels)",
}

ADVICE: dict[Fate, str] = {
    "crowd": "A crowd is a group that is outlined roughly, and ignored; set iscrowd to 0 where one object is outlined",
    "normalised": "Multiply x by the image's width and y by its height",
    "few_points": "Two points enclose nothing: draw the outlines again, or take the annotations out",
    "outside": "Are width and height of these images those of the pictures that were annotated?",
    "empty": "Lines and dots have no inside: draw the outlines again, or take the annotations out",
    "no_outline": "A box is no mask: draw outlines, or take the annotations out",
    "hidden": "Two classes claim the same pixels: keep one of the annotations, or choose classes with data.classes",
    "left_out": "data.classes chooses; name their categories there if they are wanted",
    "not_kept": "data.min_pixels chooses; 0 keeps every image",
}


@dataclass(frozen=True)
class Fates:
    """`counts`: annotations by class (of those that no class takes, by category) and fate."""

    counts: Mapping[str, Mapping[Fate, int]]

    @classmethod
    def of(cls, counted: Mapping[tuple[str, Fate], int]) -> "Fates":
        """Of numbers by class and fate."""
        names = dict.fromkeys(name for name, _ in counted)
        return cls({name: {fate: n for (of, fate), n in counted.items() if of == name} for name in names})

    @property
    def total(self) -> int:
        return sum(sum(each.values()) for each in self.counts.values())

    @property
    def lost(self) -> dict[Fate, dict[str, int]]:
        """What was not drawn: by fate, and by class."""
        by_fate = {
            fate: {name: each[fate] for name, each in self.counts.items() if each.get(fate)}
            for fate in get_args(Fate)
            if fate != "drawn"
        }
        return {fate: classes for fate, classes in by_fate.items() if classes}

    def most(self, fate: Fate) -> float:
        """The largest share of a class's annotations that met with this fate."""
        return max((each.get(fate, 0) / sum(each.values()) for each in self.counts.values()), default=0.0)

    def lines(self) -> list[str]:
        """A line for each fate but drawn: how many of how many, and of which classes."""
        return [
            f"{sum(classes.values())} of {self.total} annotations {TOLD[fate]} ({by_class(classes)})"
            for fate, classes in self.lost.items()
        ]


def by_class(numbers: Mapping[str, int], most: int = 8) -> str:
    """cat 3, dog 2: the most frequent first."""
    ordered = Counter(numbers).most_common()
    return ", ".join(f"{name} {number}" for name, number in ordered[:most]) + (", ..." if len(ordered) > most else "")
