"""The picture of the README: bars in plain SVG, readable on light and on dark pages."""

from dataclasses import dataclass
from xml.sax.saxutils import escape

from .run import Result
from .systems import SYSTEMS
from .targets import Figures

WIDTH = 760
LABEL_WIDTH = 200
VALUE_WIDTH = 90
BAR_HEIGHT = 20
ROW_HEIGHT = 28
PANEL_GAP = 34

# Colours of text and bars, of GitHub's light and dark pages.
STYLE = """
    text { font: 14px system-ui, sans-serif; fill: #1f2328; }
    .title { font-weight: 600; }
    .value { font-variant-numeric: tabular-nums; }
    .other { fill: #8c959f; }
    .own { fill: #0969da; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .other { fill: #6e7681; }
      .own { fill: #4493f8; }
    }
"""


@dataclass
class Bar:
    label: str
    value: float
    is_own: bool


@dataclass
class Panel:
    title: str
    unit: str
    bars: list[Bar]

    @property
    def height(self) -> int:
        return ROW_HEIGHT * (1 + len(self.bars))


def draw(results: list[Result]) -> str:
    """The SVG; empty without a measurement for any panel."""
    figures = Figures(results)
    panels = [
        panel("Memory a stream, 10,000 idle streams", "KiB", "a", figures.memory_kib),
        panel("CPU a delivery, 1,000 streams, 10 events a second", "µs", "b-1k-10", figures.cpu),
        panel("CPU a delivery, 10,000 streams, 10 events a second", "µs", "b-10k-10", figures.cpu),
    ]
    panels = [it for it in panels if it.bars]
    if not panels:
        return ""
    height = sum(it.height for it in panels) + PANEL_GAP * (len(panels) - 1) + ROW_HEIGHT // 2
    parts, y = [], 0
    for it in panels:
        parts += draw_panel(it, y)
        y += it.height + PANEL_GAP
    summary = escape("; ".join(f"{it.title}: {spoken(it)}" for it in panels))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img">\n'
        f"  <title>fanfare beside other systems</title>\n  <desc>{summary}</desc>\n"
        f"  <style>{STYLE}  </style>\n" + "".join(f"  {part}\n" for part in parts) + "</svg>\n"
    )


def panel(title: str, unit: str, work: str, value_of) -> Panel:
    bars = []
    for system in SYSTEMS:
        try:
            value = value_of(work, system.name)
        except KeyError:
            continue
        bars.append(Bar(system.title, value, system.name in ("raw", "body")))
    return Panel(title, unit, bars)


def draw_panel(it: Panel, top: int) -> list[str]:
    longest = max(bar.value for bar in it.bars) or 1
    room = WIDTH - LABEL_WIDTH - VALUE_WIDTH
    parts = [text(0, top + BAR_HEIGHT, f"{it.title} ({it.unit})", "title")]
    for number, bar in enumerate(it.bars, start=1):
        y = top + number * ROW_HEIGHT
        width = max(room * bar.value / longest, 1)
        kind = "own" if bar.is_own else "other"
        parts.append(text(LABEL_WIDTH - 10, y + 15, bar.label, anchor="end"))
        parts.append(f'<rect class="{kind}" x="{LABEL_WIDTH}" y="{y}" width="{width:.1f}" height="{BAR_HEIGHT}" rx="3"/>')
        parts.append(text(LABEL_WIDTH + width + 8, y + 15, shown(bar.value), "value"))
    return parts


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f'<text{kind} x="{x:.1f}" y="{y}" text-anchor="{anchor}">{escape(content)}</text>'


def shown(value: float) -> str:
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def spoken(it: Panel) -> str:
    return ", ".join(f"{bar.label} {shown(bar.value)} {it.unit}" for bar in it.bars)
