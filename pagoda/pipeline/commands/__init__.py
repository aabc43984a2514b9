"""What the commands of ``pagoda`` do. Nothing heavy is imported before one of them runs.

:mod:`pipeline` runs the stages of an experiment and of studies, :mod:`scoring` the evaluation, of
any images too, :mod:`tools` what is around them; :mod:`running` is the door from a command to its
stage.
"""
