"""The pytest plugin. Loaded in every repository where it is installed, so these parts are light."""

pytest_plugins = tuple(
    f"diffusers_perf.plugin.{name}"
    for name in ("options", "model_folder", "checkouts", "collection", "fixtures")
)
