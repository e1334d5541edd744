"""A Flask view that does nothing: what a request costs at least on this server."""

from flask import Flask

app = Flask(__name__)


@app.route("/", methods=["GET", "POST"])
def answer() -> str:
    """Answer."""
    return "ok"
