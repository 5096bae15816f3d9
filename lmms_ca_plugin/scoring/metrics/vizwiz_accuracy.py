"""`vizwiz_accuracy` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

VizwizAccuracy = metric_class("vizwiz_accuracy")
