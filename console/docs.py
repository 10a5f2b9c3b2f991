"""The documentation, the set-up pages of tools, and the files to download."""

from flask import Blueprint, render_template

pages = Blueprint("docs", __name__, url_prefix="/docs")


@pages.get("/")
def index():
    return render_template("public/front.html")


@pages.get("/<name>")
def page(name):
    return render_template("public/front.html")
