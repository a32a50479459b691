"""Every error a user can meet.

    QuadsError                 exit code 1
    ├── ConfigError            exit code 2   quads.toml or a command-line value
    ├── StorageError                         a file cannot be written: disk full, no permission
    ├── InstallationError                    an optional package or package data is missing
    ├── AudioError                           a sound file or a data set cannot be used
    ├── TrainingError                        training cannot start or cannot go on
    ├── ModelFormatError                     a model file is damaged, hostile or of another version
    ├── ExportError                          a model cannot be represented
    │   └── TargetError        exit code 3   a target is unknown or cannot take it (and ConfigError)
    ├── BuildError                           toolchain missing, or compilation failed
    ├── DeviceError            exit code 3   board or link
    │   ├── LinkError                        port missing, busy, silent or dropped
    │   └── ProtocolError                    the device answered something else than expected
    └── ThresholdError         exit code 4   a measured figure missed its threshold

Messages say what failed, the value, the limit and the next step, in one line.
"""

from __future__ import annotations


class QuadsError(Exception):
    """Base of all errors raised on purpose."""

    exit_code = 1


class ConfigError(QuadsError):
    """A setting is unknown or out of range."""

    exit_code = 2


class StorageError(QuadsError):
    """A file cannot be written."""


class InstallationError(QuadsError):
    """Something that should be installed is not."""


class AudioError(QuadsError):
    """A sound file or data set cannot be used."""


class TrainingError(QuadsError):
    """Training cannot start or cannot go on."""


class ModelFormatError(QuadsError):
    """A model file is damaged, hostile or of another version."""


class ExportError(QuadsError):
    """A model cannot be represented in the packed format or does not fit a board."""


class TargetError(ExportError, ConfigError):
    """The target is unknown, has no room, or cannot take what is asked of it."""

    exit_code = 3


class BuildError(QuadsError):
    """The firmware could not be compiled."""


class DeviceError(QuadsError):
    """The board or the link to it failed."""

    exit_code = 3


class LinkError(DeviceError):
    """The port is missing, busy, silent or was dropped."""


class ProtocolError(DeviceError):
    """The device answered something else than expected."""


class ThresholdError(QuadsError):
    """A measured figure missed its threshold in quads.toml."""

    exit_code = 4
