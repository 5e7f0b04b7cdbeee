"""Several trainers on the same plans and cases: training, every subset predicted, scores, costs."""
