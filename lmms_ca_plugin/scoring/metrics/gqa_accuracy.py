"""`gqa_accuracy` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

GqaAccuracy = metric_class("gqa_accuracy")
