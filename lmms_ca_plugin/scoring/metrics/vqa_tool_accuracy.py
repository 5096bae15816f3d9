"""`vqa_tool_accuracy` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

VqaToolAccuracy = metric_class("vqa_tool_accuracy")
