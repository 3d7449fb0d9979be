"""Numbers that say how good a model is, what it costs, and how two methods differ over seeds."""

from kdlearn.measure.cost import Profile, count_parameters, profile
from kdlearn.measure.metrics import (
    accuracy,
    agreement,
    energy_in_box,
    evaluate,
    expected_calibration_error,
    kl_to_teacher,
    pointing_game,
    predict,
)
from kdlearn.measure.paired import PairedDifference, holm, load_results, paired_difference, summary
from kdlearn.measure.similarity import linear_cka

__all__ = [
    "PairedDifference",
    "Profile",
    "accuracy",
    "agreement",
    "count_parameters",
    "energy_in_box",
    "evaluate",
    "expected_calibration_error",
    "holm",
    "kl_to_teacher",
    "linear_cka",
    "load_results",
    "paired_difference",
    "pointing_game",
    "predict",
    "profile",
    "summary",
]
