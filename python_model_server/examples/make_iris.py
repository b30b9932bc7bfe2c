"""Makes the models of two examples, onnx-network/iris.onnx and sklearn-pipeline/iris.skops: the same classifier of
irises in both forms, fitted on the table that comes with scikit-learn.

    python make_iris.py [FOLDER]        default: the folder of this file
"""

import sys
from pathlib import Path

import numpy as np
import onnx
import skops.io
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_iris
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler


def main():
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent
    iris = load_iris()
    species = iris.target_names[iris.target].astype("U")
    pipeline = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(iris.data, species)
    skops.io.dump(pipeline, folder / "sklearn-pipeline" / "iris.skops")

    # The same in one matrix: (x - mean) / scale, times the weights, plus the bias.
    scaler, classifier = pipeline
    weights = (classifier.coef_ / scaler.scale_).T
    bias = classifier.intercept_ - scaler.mean_ @ weights
    constants = [
        numpy_helper.from_array(np.ascontiguousarray(array, "f4"), name)
        for name, array in (("weights", weights), ("bias", bias))
    ]
    nodes = [
        helper.make_node("Gemm", ["measures", "weights", "bias"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=-1),
    ]
    taken = helper.make_tensor_value_info("measures", TensorProto.FLOAT, ["rows", 4])
    given = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["rows", 3])
    graph = helper.make_graph(nodes, "iris", [taken], [given], constants)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, folder / "onnx-network" / "iris.onnx")


if __name__ == "__main__":
    main()
