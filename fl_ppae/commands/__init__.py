"""The subcommands of `fl-ppae`, one module each; every `command` returns the process's exit code."""
