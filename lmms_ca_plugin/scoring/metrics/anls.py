"""`anls` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

Anls = metric_class("anls")
