"""Charts of the report, as SVG within the page."""

from __future__ import annotations

from collections import Counter

from .markup import Html, escaped

WIDTH, HEIGHT = 960, 180  # of the histogram's bars, in pixels


def bar(share: float) -> Html:
    """A bar as long as the share, which is from 0 to 1."""
    width = 160 * min(max(share, 0.0), 1.0)
    return Html(
        f'<svg width="160" height="12" role="img" aria-label="{share:.1%}">'
        f'<rect width="{width:.1f}" height="12" rx="2"/></svg>'
    )


def histogram(sizes: Counter[int]) -> Html:
    """How many documents have how many characters.

    `sizes[b]` counts those with 2^(b-1) to 2^b - 1 characters, `sizes[0]` those with none.
    """
    if not sizes:
        return Html("<p>There are no documents.</p>")
    first, last = min(sizes), max(sizes)
    step = WIDTH / (last - first + 1)
    tallest = max(sizes.values())
    drawn = []
    for i, bits in enumerate(range(first, last + 1)):
        count, x = sizes[bits], i * step
        height = HEIGHT * count / tallest
        low, high = (2 ** (bits - 1), 2**bits - 1) if bits else (0, 0)
        title = f"{count:,} documents of {low:,} to {high:,} characters"
        drawn.append(
            f'<rect x="{x + 1:.1f}" y="{20 + HEIGHT - height:.1f}" width="{step - 2:.1f}" '
            f'height="{height:.1f}"><title>{escaped(title)}</title></rect>'
            f'<text x="{x + step / 2:.1f}" y="{14 + HEIGHT - height:.1f}" text-anchor="middle">'
            f"{short(count) if count else ''}</text>"
            f'<text x="{x:.1f}" y="{HEIGHT + 38}">{short(low)}</text>'
        )
    caption = "Documents by their number of characters: each bar begins at the number below it."
    return Html(
        f'<p>{caption}</p><svg viewBox="0 0 {WIDTH} {HEIGHT + 44}" width="{WIDTH}" role="img" '
        f'aria-label="{caption}">{"".join(drawn)}</svg>'
    )


def short(number: int) -> str:
    """A number in few signs.

    >>> short(999), short(131072), short(16777216)
    ('999', '131k', '17M')
    """
    for unit, name in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= unit:
            return f"{number / unit:.0f}{name}"
    return str(number)
