"""What a user's model may import. These names stay compatible across upgrades, see ADDING_A_MODEL.md."""

from .errors import DatasetError, RowError
from .models.base import Model, Runner, encode_top
from .models.batch_model import BatchModel, SetupContext
from .parameters import Parameter
from .training_data import Dataset, Example
from .training_run import TrainingRun

__all__ = [
    "BatchModel",
    "Dataset",
    "DatasetError",
    "Example",
    "Model",
    "Parameter",
    "RowError",
    "Runner",
    "SetupContext",
    "TrainingRun",
    "encode_top",
]
