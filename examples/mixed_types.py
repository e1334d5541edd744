"""A pipeline on a table of texts and numbers with missing values, from `fit` to a scored table."""

from palmerpenguins import load_penguins
from sklearn.compose import make_column_selector, make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from scorequeue import Client
from worker import register

penguins = load_penguins().dropna(subset="body_mass_g")
features = penguins.drop(columns="body_mass_g")
encode = make_column_transformer(
    (OneHotEncoder(handle_unknown="ignore", sparse_output=False), make_column_selector(dtype_exclude="number")),
    remainder="passthrough",
)
model = make_pipeline(encode, HistGradientBoostingRegressor(random_state=0)).fit(features, penguins["body_mass_g"])

version = register(model, "penguin-mass", features)
with Client() as client:
    scored = client.score(features.tail(4), model=version.reference)
print(scored[["species", "sex", "prediction"]].to_string())
