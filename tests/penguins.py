"""A real table of mixed types with missing values: 344 penguins, from the package `palmerpenguins`."""

from __future__ import annotations

from typing import Any

import pandas as pd
from palmerpenguins import load_penguins
from sklearn.compose import ColumnTransformer, make_column_selector
from sklearn.impute import SimpleImputer
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

NUMBERS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TEXTS = ["island", "sex"]


def load_features() -> tuple[pd.DataFrame, pd.Series[str]]:
    """Return what is measured of each penguin, the year as a whole number among it, and its species.

    Of two penguins nothing was measured but island and year, of eleven the sex is not known.
    """
    penguins = load_penguins()
    return penguins[[*TEXTS, *NUMBERS, "year"]], penguins["species"]


def make_mixed(estimator: Any) -> Any:
    """Put what a notebook puts before an estimator: imputers, a scaler and an encoder, each for its columns."""
    numbers = make_pipeline(SimpleImputer(strategy="median"), StandardScaler())
    texts = make_pipeline(SimpleImputer(strategy="most_frequent"), OneHotEncoder(handle_unknown="ignore"))
    columns = ColumnTransformer([
        ("numbers", numbers, make_column_selector(dtype_include="number")),
        ("texts", texts, make_column_selector(dtype_exclude="number")),
    ])  # fmt: skip
    return make_pipeline(columns, estimator)
