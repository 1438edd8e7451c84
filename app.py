"""The dashboard's entry: `streamlit run app.py -- [RUN ...]` shows the runs under data/ and those named.

--read FOLDER, before or after them, names a folder that jobs may read besides: pools, targets, images to embed. An
address, --read https://host/folder, allows images from below it.

Streamlit serves pages/main.py to the browser; beside it this app answers routes of its own: the images of a run's pool
and the files it exported, which need not pass through Streamlit's memory, and what a page would else send once more
with whatever it says.
"""

from __future__ import annotations

import argparse

import streamlit as st
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware

from pages.parts import catalog, routes, warming

parser = argparse.ArgumentParser(prog="streamlit run app.py --")
parser.add_argument("runs", nargs="*")
parser.add_argument("--read", action="append", default=[])
given = parser.parse_args()
catalog.allow(given.runs, given.read)

# Streamlit guards its socket with this list; the routes get the same guard.
hosts = Middleware(TrustedHostMiddleware, allowed_hosts=st.get_option("server.allowedHosts") or ["*"])

# Between the server's start and the first page there is time for what that page needs.
warming.warm_up()

app = st.App("pages/main.py", routes=routes.ROUTES, middleware=[hosts, Middleware(routes.ContentPolicy)])
