"""IDunno's model server: predefined models and users' own behind the Open Inference Protocol v2.

Importing the package loads no heavy library. A local cluster starts seven of these servers on two cores, so numpy,
onnxruntime, Pillow, onnx and scikit-learn are imported where they are first used.
"""

__version__ = "0.1.0"
