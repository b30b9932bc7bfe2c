"""Turns weights that ship inside Python packages into ONNX files, with numpy and onnx alone (no torch, no network).

The files are byte-identical from build to build under the pinned onnx version, because a model's version is the hash
of its artefact. Every tensor of a weights file must be used by the graph, otherwise the conversion fails.
"""
