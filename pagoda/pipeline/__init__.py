"""What a user types: the command line, the stages of the pipeline, the plan, the doctor."""
