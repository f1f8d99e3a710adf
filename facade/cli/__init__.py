"""The `facade` command: one module per noun.

What is heavy is imported inside the commands that need it, so that `--help` stays quick.
"""
