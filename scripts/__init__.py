"""The deployment commands, one module per script that it replaces.

Imports run one way: tasks.py -> command -> the commands -> the shared nouns (invocation, rollout,
version, environments) -> the edges (aws, shell) -> console -> errors. Commands do not import commands.
boto3 is imported in aws.py alone, sh in shell.py alone, and both only when they are used.
"""
