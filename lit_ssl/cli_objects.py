"""How the command line finds classes and builds objects of them; a part of ``lit_ssl.cli``."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import TYPE_CHECKING, Any

from lightning.pytorch.cli import _InstantiatorFn

if TYPE_CHECKING:
    from lit_ssl.cli import LitSSLCLI

__all__ = ["Instantiator", "ModuleInstantiator", "import_components"]


def import_components() -> None:
    """Import every method, strategy, callback and data module, so that short names are known."""
    for name in ("methods", "strategies", "callbacks", "datamodules"):
        package = import_module(f"lit_ssl.{name}")
        for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
            import_module(module.name)


class Instantiator:
    """Builds an object; keeps the error of its constructor, which jsonargparse hides in its own."""

    def __init__(self, cli: LitSSLCLI) -> None:
        self.cli = cli

    def __call__(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Build an object of a class."""
        try:
            return self.build(class_type, *args, **kwargs)
        except Exception as error:
            self.cli.failure = self.cli.failure or error
            raise

    def build(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        """Call the class."""
        return class_type(*args, **kwargs)


class ModuleInstantiator(Instantiator):
    """Builds a module or data module as LightningCLI does, with its parsed hyper-parameters.

    Values that are linked stay out of the hyper-parameters of classes that do not take them: such a
    checkpoint could never be loaded again.
    """

    def __init__(self, cli: LitSSLCLI, key: str) -> None:
        super().__init__(cli)
        self.lightning = _InstantiatorFn(cli=cli, key=key)

    def __call__(
        self, class_type: type, *args: Any, applied_instantiation_links: dict, **kwargs: Any
    ) -> Any:
        """Build an object of a class; jsonargparse finds the wish for links by this signature."""
        return super().__call__(class_type, *args, links=applied_instantiation_links, **kwargs)

    def build(self, class_type: type, *args: Any, links: dict, **kwargs: Any) -> Any:
        """Call the class where Lightning finds its hyper-parameters."""
        links = {key: value for key, value in links.items() if key.rpartition(".")[2] in kwargs}
        if self.lightning.key == "model" and "num_classes" in kwargs:
            self.cli.check_num_classes(class_type, kwargs["num_classes"])
        return self.lightning(class_type, *args, applied_instantiation_links=links, **kwargs)
