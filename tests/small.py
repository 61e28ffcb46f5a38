"""A victim that compiles in a second, for tests of what lies around the victims."""

import contextlib

import flax.linen as nn
import pytest

from ucjax.victims import table, training
from ucjax.victims.contract import Model


class Linear(nn.Module):
    classes: int

    @nn.compact
    def __call__(self, x, *, train):
        return nn.Dense(self.classes, kernel_init=nn.initializers.zeros)(x.reshape(len(x), -1))


@contextlib.contextmanager
def linear():
    """Adds the model "linear" to the table for a while; gives the patch."""
    with pytest.MonkeyPatch.context() as patch:
        entry = Model("logistic regression", lambda classes, width: Linear(classes))
        patch.setitem(table.MODELS, "linear", entry)
        yield patch


class Counted:
    """Counts the victims that are trained."""

    def __init__(self, monkeypatch):
        self.labels, real = [], training.train_stack

        def train_stack(cells, *args, **kwargs):
            self.labels += [cell.label for cell in cells]
            return real(cells, *args, **kwargs)

        monkeypatch.setattr(training, "train_stack", train_stack)
