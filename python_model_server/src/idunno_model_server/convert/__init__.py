"""Converts weights that ship inside Python packages to ONNX files, with numpy and onnx alone (no torch, no network).

The files are byte-identical from run to run under one version of onnx, because a model's version is the hash of its
artefact. A conversion fails unless the graph uses every tensor of the weights file.
"""
