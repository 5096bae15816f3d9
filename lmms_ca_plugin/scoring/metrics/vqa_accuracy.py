"""`vqa_accuracy` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

VqaAccuracy = metric_class("vqa_accuracy")
