"""Regions of the earth that geo filters ask for. Points are {lat, lon} in degrees, north and east positive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mixpeek_dagster.errors import Invalid
from mixpeek_dagster.models.comparison import Json, distance_m, is_number, point_of

MAX_POINTS: Final = 1_000

Point = tuple[float, float]
Edge = tuple[float, float, float, float]


@dataclass(frozen=True)
class Region:
    """A part of the earth's surface, and the wire form it came from."""

    wire: Any

    def has(self, value: Json) -> bool:
        """Whether `value` is a point inside; what is no point is in no region."""
        point = point_of(value)
        return point is not None and self._has(point)

    def _has(self, point: Point) -> bool:
        raise NotImplementedError

    def __hash__(self) -> int:
        return hash(repr(self.wire))


@dataclass(frozen=True, eq=False)
class Circle(Region):
    """All points at most `radius_m` metres from `center`."""

    center: Point
    radius_m: float

    def _has(self, point: Point) -> bool:
        return distance_m(self.center, point) <= self.radius_m


@dataclass(frozen=True, eq=False)
class Box(Region):
    """Between two latitudes and two longitudes, edges included; it crosses the antimeridian when `left` > `right`."""

    top: float
    left: float
    bottom: float
    right: float

    def _has(self, point: Point) -> bool:
        lat, lon = point
        if not self.bottom <= lat <= self.top:
            return False
        return self.left <= lon <= self.right if self.left <= self.right else lon >= self.left or lon <= self.right


@dataclass(frozen=True, eq=False)
class Polygon(Region):
    """Inside the first ring and outside the others, on a flat map; each ring is its edges (lat, lon, lat, lon).

    A point exactly on an edge may be in or out.
    """

    rings: tuple[tuple[Edge, ...], ...]

    def _has(self, point: Point) -> bool:
        outer, *holes = (_inside(ring, point) for ring in self.rings)
        return outer and not any(holes)


def _inside(ring: Sequence[Edge], point: Point) -> bool:
    lat, lon = point
    crossings = 0
    for lat_a, lon_a, lat_b, lon_b in ring:
        if (lat_a > lat) != (lat_b > lat) and lon < (lon_b - lon_a) * (lat - lat_a) / (lat_b - lat_a) + lon_a:
            crossings += 1
    return crossings % 2 == 1


def region(operator: str, value: Json, at: str) -> Region:
    """The region of a geo operator's value. Raises `Invalid` naming what is wrong with it."""
    body = _object(value, at)
    if operator == "geo_radius":
        center = _point(body["center"], f"{at}.center") if "center" in body else _point(body, at)
        radius = body.get("radius")
        if not isinstance(radius, int | float) or not is_number(radius) or not 0 <= radius < 1e9:
            raise _invalid(f"{at}.radius", "expected a number of metres, at least 0")
        return Circle(value, center, float(radius))
    if operator == "geo_bounding_box":
        top, left = _point(body.get("top_left"), f"{at}.top_left")
        bottom, right = _point(body.get("bottom_right"), f"{at}.bottom_right")
        if bottom > top:
            raise _invalid(f"{at}.bottom_right.lat", "lies north of top_left")
        return Box(value, top, left, bottom, right)
    rings = [_ring(body.get("exterior"), f"{at}.exterior")]
    interiors = body.get("interiors") or []
    if not isinstance(interiors, list | tuple):
        raise _invalid(f"{at}.interiors", "expected a list of rings")
    rings += [_ring(ring, f"{at}.interiors[{place}]") for place, ring in enumerate(interiors)]
    if sum(map(len, rings)) > MAX_POINTS:
        raise _invalid(at, f"more than {MAX_POINTS:,} points")
    return Polygon(value, tuple(rings))


def _ring(value: Json, at: str) -> tuple[Edge, ...]:
    points = _object(value, at).get("points")
    if not isinstance(points, list | tuple) or len(points) < 3:
        raise _invalid(f"{at}.points", "expected at least 3 points")
    ring = [_point(point, f"{at}.points[{place}]") for place, point in enumerate(points)]
    return tuple((*a, *b) for a, b in zip(ring, [*ring[1:], ring[0]]))


def _object(value: Json, at: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise _invalid(at, "expected an object")
    return value


def _point(value: Json, at: str) -> Point:
    point = point_of(value)
    if point is None:
        raise _invalid(at, "expected {lat, lon} in degrees, lat within ±90 and lon within ±180")
    return point


def _invalid(at: str, problem: str) -> Invalid:
    return Invalid(f"{at}: {problem}", details={"location": at})
