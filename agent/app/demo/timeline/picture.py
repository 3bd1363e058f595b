"""Draw a timeline with matplotlib (Agg): 1600 by 700 pixels, colours that colour-blind people tell apart.

The colours are Okabe and Ito's. What was cut off is hatched and outlined besides being grey, so it does not
depend on colour at all.
"""

import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from agent.app.demo.timeline.lanes import POINTS_PER_S, AnswerLane, Envelope, Timeline, Words

_INCHES: Final = (16.0, 7.0)
_DPI: Final = 100
_CALLER, _AGENT, _CUT, _BARGE, _INK, _SOFT = "#0072B2", "#E69F00", "#999999", "#D55E00", "#222222", "#666666"
_SAID_Y, _SENT_Y, _HEARD_Y = 2.0, 1.0, 0.0
_HALF: Final = 0.24
"""Half the height of a lane's sound; the rest of a lane is for words."""
_LETTERS_PER_INCH: Final = 14.5
"""At 8 points; a little less than fit."""
_MOST_LINES: Final = 4


def draw(timeline: Timeline, path: Path) -> None:
    """Write the picture as PNG to ``path``. Raises OSError. Takes a second of CPU: call it in a thread."""
    from matplotlib import rc_context  # noqa: PLC0415  (loaded when the call is over, off the audio path)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (as above)
    from matplotlib.figure import Figure  # noqa: PLC0415  (as above)

    style: Any = {"font.size": 9, "font.family": "DejaVu Sans", "hatch.linewidth": 0.6, "text.parse_math": False}
    with rc_context(style):
        figure = Figure(figsize=_INCHES, dpi=_DPI, facecolor="white")
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.075, 0.115, 0.91, 0.76))
        _frame(figure, axes, timeline)
        _sounds(axes, timeline.caller, _SAID_Y, _CALLER)
        _sounds(axes, timeline.heard, _HEARD_Y, _AGENT)
        _answers(axes, timeline)
        inch_s = timeline.duration_s / (_INCHES[0] * 0.91)
        _words(axes, timeline.said, _SAID_Y + _HALF + 0.04, inch_s, timeline.duration_s)
        heard = [Words(answer.begin_s, answer.heard_s, _heard(answer)) for answer in timeline.answers]
        _words(axes, heard, _HEARD_Y - _HALF - 0.06, inch_s, timeline.duration_s, below=True)
        lost = [Words(answer.heard_s + 0.1, answer.end_s, answer.unheard_text) for answer in timeline.answers]
        _words(axes, lost, _SENT_Y - 0.22, inch_s, timeline.duration_s, below=True, lost=True)
        _events(axes, timeline)
        _legend(figure)
        figure.savefig(path, format="png", dpi=_DPI)


def _frame(figure: Any, axes: Any, timeline: Timeline) -> None:
    figure.text(0.075, 0.945, f"Call: {timeline.title}", fontsize=15, fontweight="bold", color=_INK)
    figure.text(0.075, 0.905, timeline.subtitle, fontsize=10, color=_SOFT)
    axes.set_xlim(-0.2, timeline.duration_s + 0.2)
    axes.set_ylim(-0.95, 2.85)
    axes.set_xlabel("seconds since the call was answered", color=_SOFT)
    axes.set_yticks(
        [_SAID_Y, _SENT_Y, _HEARD_Y], ["caller\nsaid", "agent\ngenerated,\nsent", "agent\nheard"], color=_INK
    )
    axes.tick_params(axis="y", length=0)
    axes.tick_params(axis="x", colors=_SOFT)
    axes.xaxis.grid(visible=True, color="#e6e6e6", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "left", "right"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#bbbbbb")


def _sounds(axes: Any, envelopes: Sequence[Envelope], y: float, colour: str) -> None:
    """Each envelope mirrored around the lane's middle; quiet speech is lifted, so that it is seen."""
    axes.axhline(y, color="#dddddd", linewidth=0.8, zorder=1)
    for envelope in envelopes:
        times = [envelope.begin_s + index / POINTS_PER_S for index in range(len(envelope.peaks))]
        heights = [_HALF * peak**0.6 for peak in envelope.peaks]
        axes.fill_between(
            times,
            [y - height for height in heights],
            [y + height for height in heights],
            color=colour,
            linewidth=0,
            zorder=3,
        )


def _answers(axes: Any, timeline: Timeline) -> None:
    """The lane of what was made: heard parts full, cut parts hatched, up to where the next answer begins."""
    height = 0.2
    limits_s = [*(answer.begin_s for answer in timeline.answers[1:]), timeline.duration_s]
    for answer, limit_s in zip(timeline.answers, limits_s, strict=False):
        axes.barh(
            _SENT_Y, answer.heard_s - answer.begin_s, height, answer.begin_s, color=_AGENT, alpha=0.55, zorder=2
        )
        if not answer.interrupted:
            continue
        end_s = min(answer.end_s, max(limit_s - 0.15, answer.heard_s))
        axes.barh(
            _SENT_Y,
            end_s - answer.heard_s,
            height,
            answer.heard_s,
            facecolor="white",
            edgecolor=_CUT,
            hatch="////",
            linewidth=0.8,
            zorder=2,
        )
        lost_s = answer.end_s - answer.heard_s
        axes.text(
            answer.heard_s + 0.05,
            _SENT_Y + height / 2 + 0.05,
            f"{lost_s:.1f} s cut off",
            fontsize=8,
            color=_SOFT,
            zorder=5,
        )
    for interval in timeline.sent:
        axes.barh(_SENT_Y - 0.15, interval.end_s - interval.begin_s, 0.05, interval.begin_s, color=_INK, zorder=3)


def _words(
    axes: Any,
    words: Sequence[Words],
    y: float,
    inch_s: float,
    duration_s: float,
    *,
    below: bool = False,
    lost: bool = False,
) -> None:
    """Words where they fit: as wide as the room until the next ones, in a few lines."""
    begins_s = [*(word.begin_s for word in words[1:]), duration_s]
    for word, next_s in zip(words, begins_s, strict=False):
        room_s = max(min(next_s - 0.2, max(word.end_s + 1.0, word.begin_s + 2.0)) - word.begin_s, 0.5)
        width = max(int(room_s / inch_s * _LETTERS_PER_INCH), 6)
        shown = textwrap.wrap(
            word.text,
            width,
            max_lines=_MOST_LINES,
            placeholder=" \N{HORIZONTAL ELLIPSIS}",
            break_on_hyphens=False,
        )
        axes.text(
            word.begin_s,
            y,
            "\n".join(shown),
            fontsize=8,
            color=_SOFT if lost else _INK,
            style="italic" if lost else "normal",
            va="top" if below else "bottom",
            linespacing=1.15,
            zorder=6,
        )


def _heard(answer: AnswerLane) -> str:
    return f"{answer.heard_text}\N{HORIZONTAL ELLIPSIS}" if answer.interrupted else answer.heard_text


def _events(axes: Any, timeline: Timeline) -> None:
    for at_s in timeline.barge_ins_s:
        axes.plot(
            (at_s, at_s),
            (_HEARD_Y - _HALF - 0.03, _SAID_Y + _HALF + 0.03),
            color=_BARGE,
            linewidth=1.6,
            linestyle=(0, (4, 2)),
            zorder=4,
        )
        axes.text(at_s + 0.08, 1.48, "barge-in", fontsize=8.5, color=_BARGE, fontweight="bold", zorder=6)
    for gap in timeline.gaps:
        axes.axvspan(gap.at_s, gap.at_s + gap.gap_s, 0.1, 0.45, color=_BARGE, alpha=0.5, zorder=5)
        axes.text(gap.at_s, 0.42, f"gap {gap.gap_s * 1000:.0f} ms", fontsize=8, color=_BARGE, zorder=6)
    small = {"fontsize": 8, "color": _SOFT, "ha": "center", "va": "top", "zorder": 6}
    for latency in timeline.latencies:
        y = 1.66
        axes.annotate(
            "",
            (latency.agent_s, y),
            (latency.caller_s, y),
            arrowprops={"arrowstyle": "|-|,widthA=0.25,widthB=0.25", "color": _SOFT, "linewidth": 1},
            zorder=5,
        )
        middle_s = (latency.caller_s + latency.agent_s) / 2
        axes.text(middle_s, y - 0.06, f"{latency.ms} ms", **small)


def _legend(figure: Any) -> None:
    from matplotlib.lines import Line2D  # noqa: PLC0415  (see draw)
    from matplotlib.patches import Patch  # noqa: PLC0415  (see draw)

    handles = [
        Patch(color=_CALLER, label="caller"),
        Patch(color=_AGENT, label="agent, heard"),
        Patch(facecolor="white", edgecolor=_CUT, hatch="////", label="generated, cut off, never heard"),
        Line2D([], [], color=_INK, linewidth=3, label="sent to the carrier"),
        Line2D([], [], color=_BARGE, linestyle=(0, (4, 2)), label="barge-in"),
        Line2D([], [], color=_SOFT, marker="|", label="end of speech to answer"),
    ]
    figure.legend(
        handles=handles, loc="upper right", bbox_to_anchor=(0.99, 0.995), ncols=3, frameon=False, fontsize=9
    )
