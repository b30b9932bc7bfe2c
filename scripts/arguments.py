"""Arguments that the demo and the benchmarks share, checked before anything starts."""

import argparse
import sys
from pathlib import Path

from idunno_model_server.models import registry
from local_cluster import ROOT


def at_least(minimum):
    """A whole number that is not below the minimum."""

    def parse(text):
        number = int(text)
        if number < minimum:
            raise argparse.ArgumentTypeError(f"must be {minimum} or more")
        return number

    parse.__name__ = "number"  # argparse names the type in its message
    return parse


def model(text):
    """The name of a model that the model server has."""
    if text not in registry():
        raise argparse.ArgumentTypeError(f"unknown model '{text}'; choose from {', '.join(registry())}")
    return text


def models(text):
    """Names of models, separated by commas; each counts once."""
    names = list(dict.fromkeys(filter(None, text.split(","))))
    if not names:
        raise argparse.ArgumentTypeError(f"needs a model; choose from {', '.join(registry())}")
    return [model(name) for name in names]


def output_file(text):
    """A file to write, in a directory that exists."""
    path = Path(text)
    if not path.absolute().parent.is_dir():
        raise argparse.ArgumentTypeError(f"no directory {path.absolute().parent}")
    return path


def add_common(parser, directory):
    """Adds what every program here takes: the report, the working directory, and what the shell scripts pass."""
    parser.add_argument("--json", type=output_file, metavar="FILE", help="write the figures to FILE")
    parser.add_argument("--dir", type=Path, default=ROOT / directory, help=f"working directory ({directory})")
    parser.add_argument("--programs", type=Path, default=ROOT / "target/release", help=argparse.SUPPRESS)
    parser.add_argument("--python", type=Path, default=Path(sys.executable), help=argparse.SUPPRESS)


def add_benchmark(parser):
    """Adds what both benchmarks take."""
    parser.add_argument("--images", type=at_least(1), default=5000, metavar="N", help="photos of the main job (5000)")
    parser.add_argument("--model", type=model, default="squeezenet1.1", help="the main job's model (squeezenet1.1)")
    parser.add_argument(
        "--rounds",
        type=at_least(1),
        default=1,
        metavar="N",
        help="repeat everything N times and keep the best (1)",
    )
    parser.add_argument(
        "--lines", type=at_least(1), default=1_000_000, metavar="N", help="lines of the text job (1000000)"
    )
    parser.add_argument(
        "--text-batch-size", type=at_least(1), default=1024, metavar="N", help="its lines a batch (1024)"
    )
    parser.add_argument("--insecure", action="store_true", help="run without encryption, to measure what it costs")
    add_common(parser, ".demo/bench")
