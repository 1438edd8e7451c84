"""How are two-dimensional counts drawn? As an image binned on the server, whatever the pool's size."""

from __future__ import annotations

import base64
import io

import numpy as np
import plotly.graph_objects as go
import streamlit as st
from PIL import Image

_LIGHT = ((214, 236, 233), (45, 168, 156), (6, 62, 66))
_DARK = ((20, 58, 60), (28, 140, 130), (190, 250, 240))
_CONFIG = {
    "displaylogo": False,
    "displayModeBar": True,
    "scrollZoom": True,
    "modeBarButtonsToRemove": ["toImage", "autoScale2d"],
}


def cells(points: int) -> int:
    """Bins along each axis: fewer for few points, so that neighbours touch."""
    return int(np.clip(2.5 * np.sqrt(points), 32, 512))


def density_image(counts: np.ndarray) -> str:
    """A PNG data address of counts (x bins, y bins): empty cells clear, full ones in shades of the log count."""
    level = np.log1p(counts.T[::-1].astype(np.float64))
    level /= level.max() or 1.0
    stops = np.array(_DARK if st.context.theme.type == "dark" else _LIGHT, np.float64)
    pixels = np.empty((*level.shape, 4), np.uint8)
    for channel in range(3):
        pixels[..., channel] = np.interp(level, [0, 0.5, 1], stops[:, channel])
    pixels[..., 3] = np.where(level > 0, 255, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def density_figure(
    counts: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float], *, height: int
) -> go.Figure:
    """A figure of one image over its two axes. counts: (x bins, y bins) over the two ranges, in their units.

    A marker outside the view is there because plotly reports box and lasso only where some trace could be selected.
    """
    figure = go.Figure(go.Scatter(x=[None], y=[None], mode="markers", hoverinfo="skip", showlegend=False))
    figure.add_layout_image(
        source=density_image(counts),
        xref="x",
        yref="y",
        x=x_range[0],
        y=y_range[1],
        sizex=x_range[1] - x_range[0],
        sizey=y_range[1] - y_range[0],
        sizing="stretch",
        layer="above",
    )
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        uirevision="keep",
        hovermode=False,
        modebar={"orientation": "v"},
    )
    figure.update_xaxes(range=list(x_range), zeroline=False)
    figure.update_yaxes(range=list(y_range), zeroline=False)
    return figure


def metric_density(
    counts: np.ndarray, x_range: tuple[float, float], y_range: tuple[float, float], x_title: str, y_title: str
) -> None:
    """Draws the joint counts of two metrics, axes in score units."""
    figure = density_figure(counts, x_range, y_range, height=520)
    figure.update_xaxes(title=x_title, showgrid=True)
    figure.update_yaxes(title=y_title, showgrid=True)
    st.plotly_chart(figure, key="density", config=_CONFIG)
