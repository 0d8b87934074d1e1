"""The whole GPU as a bar: what its memory holds while an arm runs, as quantities derived from the metrics.

Layers of one device and one instant's kind (peaks of the measure phase; the KV pool's shares are means), so that they
add up to the device: weights + KV pool + activations and graphs + unexplained + before loading + free = total.
"""

from __future__ import annotations

from dataclasses import dataclass

from kvlab.quantities import Message, Metrics, Quantity

MEASURED = ("weights.bytes", "pool.bytes", "device.idle", "device.peak", "device.total", "torch.reserved.peak")


@dataclass(frozen=True)
class Layer:
    """A piece of the bar; `start` and `width` in per cent of the device."""

    name: str
    quantity: Quantity
    start: float
    width: float


def gpu_layers(metrics: Metrics, workload: str, arm: str) -> list[Layer]:
    """From the weights to what is free; empty where the run did not record all it needs (no GPU, an older log)."""
    at = f"{workload}.{arm}."
    found = {name: metrics.quantities.get(at + name) for name in MEASURED}
    shares = _shares(metrics, at)
    known = [q for q in found.values() if q is not None and q.value is not None]
    if len(known) < len(MEASURED) or not shares:
        return []
    value = {name: q.value or 0.0 for name, q in found.items() if q is not None}
    pool, reserved = value["pool.bytes"], value["torch.reserved.peak"]
    layers = {
        "weights": found["weights.bytes"],
        "kv.tokens": _made(at, "kv.tokens", pool * _sum(shares, "tokens"), known),
        "kv.held": _made(at, "kv.held", pool * _sum(shares, "reserved", "internal"), known),
        "kv.free": _made(at, "kv.free", pool * _sum(shares, "external"), known),
        "working": _made(at, "working", reserved - value["weights.bytes"] - pool, known),
        "unexplained": _made(
            at, "unexplained", value["device.peak"] - value["device.idle"] - value["torch.reserved.peak"], known
        ),
        "idle": found["device.idle"],
        "free": _made(at, "free", value["device.total"] - value["device.peak"], known),
    }
    if any((q.value or 0) < 0 for q in layers.values() if q is not None):
        return []  # layers that overlap: the engine's counters are not of this process
    placed, start = [], 0.0
    for name, quantity in layers.items():
        if quantity is not None and quantity.value is not None:
            width = 100 * quantity.value / value["device.total"]
            placed.append(Layer(name, quantity, round(start, 3), round(width, 3)))
            start += width
    return placed


def _shares(metrics: Metrics, at: str) -> dict[str, float]:
    """Mean shares of the pool: while requests queue where the run has that, of the whole run elsewhere."""
    for kind in ("queued.share.", "share."):
        found = {
            s: q.value
            for s in ("tokens", "reserved", "internal", "external")
            if (q := metrics.quantities.get(f"{at}{kind}{s}")) is not None and q.value is not None
        }
        if len(found) == 4:
            return found
    return {}


def _sum(shares: dict[str, float], *names: str) -> float:
    return sum(shares[name] for name in names)


def _made(at: str, name: str, value: float, of: list[Quantity]) -> Quantity:
    sources = list({(s.file, s.rows): s for q in of for s in q.sources}.values())
    return Quantity(f"{at}gpu.{name}", value, "bytes", Message(f"gpu.{name}"), min(q.n for q in of), sources)
