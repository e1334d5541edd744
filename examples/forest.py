"""A forest, from `fit` to answers of the service."""

from sklearn.datasets import load_wine
from sklearn.ensemble import RandomForestClassifier

from scorequeue import Client
from worker import register

wine = load_wine(as_frame=True)
model = RandomForestClassifier(100, random_state=0).fit(wine.data, wine.target_names[wine.target])

version = register(model, "wine", wine.data)
with Client() as client:
    job = client.submit(wine.data.sample(3, random_state=1).to_dict("records"), model=version.reference)
    print(version.reference, job.wait(timeout=60).result()["predictions"])
