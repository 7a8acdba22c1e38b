"""How the command line finds classes and builds objects of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Any, Protocol

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningCLI

from lit_ssl.errors import check_numbers
from lit_ssl.trainer.private import lightning_instantiator

__all__ = ["Instantiator", "ModuleInstantiator", "class_parser", "import_components"]


def import_components() -> None:
    """Import every method, strategy, callback and data module, so that short names are known."""
    for name in ("methods", "models", "strategies", "callbacks", "datamodules"):
        package = import_module(f"lit_ssl.{name}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            import_module(module.name)


def class_parser(class_type: type) -> ArgumentParser:
    """A parser with the options that a class takes, and those that it hands on to its parents.

    Args:
        class_type: the class.
    """
    parser = ArgumentParser(exit_on_error=False, add_help=False)
    parser.add_class_arguments(class_type, fail_untyped=False)
    return parser


class Program(Protocol):
    """What the builders need of the command line."""

    failure: Exception | None

    def check_num_classes(self, model_class: type, chosen: int | None) -> None:
        """Compare the number of classes that a model is going to get with the data module's.

        Args:
            model_class: class of the model.
            chosen: its ``num_classes``; None where it was not set.
        """


class Instantiator:
    """Builds an object; keeps the error of its constructor, which jsonargparse hides in its own.

    Args:
        cli: the command line, which is told of errors.
    """

    prefix = ""  # of the names of options in messages

    def __init__(self, cli: Program) -> None:
        self.cli = cli

    def __call__(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Build an object of a class."""
        try:
            check_numbers(kwargs, self.prefix)
            return self.build(class_type, *args, **kwargs)
        except Exception as error:
            self.cli.failure = self.cli.failure or error
            raise

    def build(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Call the class.

        Args:
            class_type: the class.
            *args: what the caller fills in, as an optimizer's parameters.
            **kwargs: its options.
        """
        return class_type(*args, **kwargs)


class ModuleInstantiator(Instantiator):
    """Builds a module or data module as LightningCLI does, with its parsed hyper-parameters.

    Values that are linked stay out of the hyper-parameters of classes that do not take them: such a
    checkpoint could never be loaded again.

    Args:
        cli: the command line, which is told of errors.
        key: ``model`` or ``data``.
    """

    def __init__(self, cli: Program, key: str) -> None:
        super().__init__(cli)
        assert isinstance(cli, LightningCLI)
        self.key = key
        self.prefix = f"{key}."
        self.build_for_lightning = lightning_instantiator(cli, key)

    def __call__(
        self, class_type: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any
    ) -> Any:
        """Build an object of a class; jsonargparse finds the wish for links by this signature."""
        return super().__call__(class_type, *args, links=applied_instantiation_links, **kwargs)

    def build(self, class_type: type, *args: Any, links: dict, **kwargs: Any) -> Any:
        """Call the class where Lightning finds its hyper-parameters.

        Args:
            class_type: the class.
            *args: as of ``Instantiator``.
            links: values that the parser has taken from other options, by the dotted name of their
                target.
            **kwargs: its options.
        """
        links = {key: value for key, value in links.items() if key.rpartition(".")[2] in kwargs}
        if self.key == "model" and "num_classes" in kwargs:
            self.cli.check_num_classes(class_type, kwargs["num_classes"])
        return self.build_for_lightning(
            class_type, *args, applied_instantiation_links=links, **kwargs
        )
