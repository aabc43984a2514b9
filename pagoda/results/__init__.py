"""What a user reads: an experiment's report, the suite's page with its claims, and MLflow.

Nothing here imports torch; everything is made from files that stages and evaluations wrote.
"""
