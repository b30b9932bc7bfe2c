"""Draws a captured terminal screen as SVG.

rich reads the escape sequences. Its own SVG export is not used: it leaves the positions of words and the shape of block
characters to the reader's font, so that charts have gaps and columns move. Here each word has its place on the grid,
block characters are rectangles, and no font is fetched.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from xml.sax.saxutils import escape

from rich.ansi import AnsiDecoder
from rich.cells import cell_len
from rich.color import blend_rgb
from rich.color_triplet import ColorTriplet
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

# A dark terminal. The console uses only the 256 colours beyond the first 16, whose values are the same everywhere.
THEME = TerminalTheme(
    background=(24, 26, 31),
    foreground=(220, 223, 228),
    normal=[
        (40, 44, 52),
        (224, 108, 117),
        (152, 195, 121),
        (229, 192, 123),
        (97, 175, 239),
        (198, 120, 221),
        (86, 182, 194),
        (220, 223, 228),
    ],
)

CELL_WIDTH, CELL_HEIGHT, FONT_SIZE, BASELINE, PADDING = 8.4, 18, 14, 13.5, 14
FULL_BLOCK, EIGHTH_BLOCK = 0x2588, 0x2581
# The share of the foreground in shaded blocks.
SHADES = {"░": 0.25, "▒": 0.5, "▓": 0.75}


@dataclass(frozen=True)
class Cell:
    """A character of the screen, and its colours."""

    text: str
    width: int
    foreground: str
    background: str | None
    bold: bool


def draw(screen: str, title: str) -> str:
    """The SVG of a screen, as `tmux capture-pane -e` prints it."""
    rows = [list(cells_of(line)) for line in AnsiDecoder().decode(screen.rstrip())]
    columns = max(sum(cell.width for cell in row) for row in rows)
    width, height = columns * CELL_WIDTH + 2 * PADDING, len(rows) * CELL_HEIGHT + 2 * PADDING
    body = [element for y, row in enumerate(rows) for element in row_elements(row, y * CELL_HEIGHT)]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" viewBox="0 0 {number(width)} {number(height)}">',
            f"<title>{escape(title)}</title>",
            f'<rect width="100%" height="100%" rx="8" fill="{THEME.background_color.hex}"/>',
            f'<g transform="translate({PADDING} {PADDING})" font-size="{FONT_SIZE}"'
            ' font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace">',
            *body,
            "</g>",
            "</svg>",
            "",
        ]
    )


def cells_of(line: Text) -> Iterator[Cell]:
    """The characters of a line with the colours that they have in the theme."""
    for offset, character in enumerate(line.plain):
        styles = [span.style for span in line.spans if span.start <= offset < span.end]
        style = Style.combine([Style.null(), *styles])
        foreground = style.color.get_truecolor(THEME) if style.color else THEME.foreground_color
        background = style.bgcolor.get_truecolor(THEME, foreground=False) if style.bgcolor else None
        if style.reverse:
            foreground, background = background or THEME.background_color, foreground
        if style.dim:
            foreground = blend_rgb(foreground, THEME.background_color, 0.4)
        yield Cell(character, cell_len(character), foreground.hex, background and background.hex, bool(style.bold))


def row_elements(row: list[Cell], top: float) -> Iterator[str]:
    """What draws a row: backgrounds first, then blocks and words."""
    foreground: list[str] = []
    x, word, word_x = 0.0, [], 0.0
    ground, ground_x = None, 0.0
    for cell in [*row, Cell(" ", 0, "", None, False)]:
        if cell.background != ground:
            if ground:
                yield rectangle(ground_x, top, x - ground_x, CELL_HEIGHT, ground)
            ground, ground_x = cell.background, x
        in_word = cell.text.isascii() and cell.text != " " and (not word or same_look(word[-1], cell))
        if word and not in_word:
            foreground.append(text_element(word, word_x, top))
            word = []
        if cell.text.isascii() and cell.text != " ":
            word_x = word_x if word else x
            word.append(cell)
        elif cell.text != " ":
            foreground.append(glyph_element(cell, x, top))
        x += cell.width * CELL_WIDTH
    yield from foreground


def same_look(one: Cell, other: Cell) -> bool:
    return (one.foreground, one.bold) == (other.foreground, other.bold)


def glyph_element(cell: Cell, x: float, top: float) -> str:
    """A character beyond ASCII: a block as a rectangle, all else as text of its own."""
    eighths = ord(cell.text) - EIGHTH_BLOCK + 1
    if EIGHTH_BLOCK <= ord(cell.text) <= FULL_BLOCK:
        height = CELL_HEIGHT * eighths / 8
        return rectangle(x, top + CELL_HEIGHT - height, CELL_WIDTH, height, cell.foreground)
    if cell.text in SHADES:
        ground = THEME.background_color
        shade = blend_rgb(ground, parse_hex(cell.foreground), SHADES[cell.text]).hex
        return rectangle(x, top, CELL_WIDTH, CELL_HEIGHT, shade)
    return text_element([cell], x, top)


def text_element(word: list[Cell], x: float, top: float) -> str:
    length = sum(cell.width for cell in word) * CELL_WIDTH
    text = escape("".join(cell.text for cell in word))
    bold = ' font-weight="bold"' if word[0].bold else ""
    return (
        f'<text x="{number(x)}" y="{number(top + BASELINE)}" textLength="{number(length)}"'
        f' lengthAdjust="spacingAndGlyphs" fill="{word[0].foreground}"{bold}>{text}</text>'
    )


def rectangle(x: float, y: float, width: float, height: float, colour: str) -> str:
    size = f'width="{number(width)}" height="{number(height)}"'
    return f'<rect x="{number(x)}" y="{number(y)}" {size} fill="{colour}" shape-rendering="crispEdges"/>'


def parse_hex(colour: str) -> ColorTriplet:
    return ColorTriplet(*bytes.fromhex(colour.removeprefix("#")))


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
