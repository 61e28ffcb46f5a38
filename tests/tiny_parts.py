"""Puts what tiny.py has into the tables of this process, under the name "tiny"."""

import tiny

from ucjax.surrogates import SURROGATES
from ucjax.victims.table import MODELS

SURROGATES["tiny"], MODELS["tiny"] = tiny.surrogate, tiny.VICTIM
