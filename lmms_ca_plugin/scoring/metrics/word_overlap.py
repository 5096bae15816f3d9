"""`word_overlap` as a script that `evaluate.load` takes."""

from lmms_ca_plugin.scoring.evaluate_metric import metric_class

WordOverlap = metric_class("word_overlap")
