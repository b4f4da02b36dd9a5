"""The error of a place of results."""

from trainer.config.config_errors import ConfigError


class StoreError(ConfigError):
    """The place of the results cannot do what is needed; nothing false is stored."""
