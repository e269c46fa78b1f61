"""This repository's own pytest settings. Options, fixtures and hooks are in the plugin."""

pytest_plugins = ("pytester",)
