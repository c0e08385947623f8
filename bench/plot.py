"""The plot of docs/PERFORMANCE.md, as SVG."""
import math

from rows import median


def plot(results):
    """Answers a second by connections as SVG, in colours that are read on white and on black."""
    width, height, left, top, right, bottom = 760, 400, 92, 24, 160, 56
    colours = ["#2f81d8", "#8a8a8a", "#d9822b", "#b0569f"]
    lines = {
        name: [median(results["load"], "answers_per_second", server=name, connections=count)
               for count in results["connections"]]
        for name in results["servers"]
    }  # fmt: skip
    step = nice_step(max(map(max, lines.values())))
    most = step * -(-max(map(max, lines.values())) // step)

    def x(index):
        place, end = (math.log(results["connections"][one]) for one in (index, -1))
        return left + (width - left - right) * place / end

    def y(value):
        return height - bottom - (height - top - bottom) * value / most

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif" font-size="13" '
        'fill="#808080">',
        "<title>Answers a second by connections</title>",
    ]
    for tick in range(int(most // step) + 1):
        value = tick * step
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(value):.1f}" y2="{y(value):.1f}" stroke="#808080" '
                     f'stroke-opacity="{1 if tick == 0 else 0.3}"/>')  # fmt: skip
        parts.append(f'<text x="{left - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,.0f}</text>')
    for index, count in enumerate(results["connections"]):
        parts.append(f'<text x="{x(index):.1f}" y="{height - bottom + 20}" text-anchor="middle">{count}</text>')
    parts.append(f'<text x="{(left + width - right) / 2}" y="{height - 12}" text-anchor="middle">connections</text>')
    parts.append(f'<text transform="translate(16 {(top + height - bottom) / 2}) rotate(-90)" text-anchor="middle">answers a second</text>')
    labels = spread([y(rates[-1]) for rates in lines.values()], 18)
    for (name, rates), colour, label in zip(lines.items(), colours, labels):
        points = " ".join(f"{x(index):.1f},{y(value):.1f}" for index, value in enumerate(rates))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2.5"/>')
        parts += [f'<circle cx="{x(index):.1f}" cy="{y(value):.1f}" r="4" fill="{colour}"/>' for index, value in enumerate(rates)]
        parts.append(f'<text x="{width - right + 12}" y="{label + 4:.1f}" fill="{colour}" font-weight="bold">{name}</text>')
    return "\n".join([*parts, "</svg>", ""])


def nice_step(most):
    """1, 2 or 5 times a power of ten, so that at most eight steps reach the top."""
    power = 10 ** (len(str(int(most))) - 1)
    return next(step for step in (power / 5, power / 2, power, power * 2) if most / step <= 8)


def spread(places, gap):
    """The places, moved down where they would be closer than the gap."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for above, below in zip(order, order[1:]):
        moved[below] = max(moved[below], moved[above] + gap)
    return moved
