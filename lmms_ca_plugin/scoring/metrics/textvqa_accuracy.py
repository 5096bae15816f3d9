"""`textvqa_accuracy` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

TextvqaAccuracy = metric_class("textvqa_accuracy")
