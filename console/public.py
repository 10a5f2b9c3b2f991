"""Pages for everybody: the front page, the model plaza, a page per model, the calculator."""

from flask import Blueprint, render_template

pages = Blueprint("public", __name__)


@pages.get("/")
def front():
    return render_template("public/front.html")


@pages.get("/models")
def plaza():
    return render_template("public/front.html")


@pages.get("/models/<path:model_id>")
def model(model_id):
    return render_template("public/front.html")


@pages.get("/calculator")
def calculator():
    return render_template("public/front.html")
