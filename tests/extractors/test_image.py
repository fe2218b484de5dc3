"""Images: everything Pillow can be made to read, and files that only claim to be images."""

import io
import struct
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from mixpeek_dagster.errors import BadRequest, ExtractionError
from mixpeek_dagster.extractors.catalogue import create
from mixpeek_dagster.extractors.content import Content
from mixpeek_dagster.extractors.engine import extract
from mixpeek_dagster.extractors.models import ModelStore
from mixpeek_dagster.extractors.pictures import Filter, open_picture, thumbnail

TOP = [113, 468, 287, 455, 897]
VALUES = [0.3808, 0.3353, 0.2746, 0.2310, 0.2134]


def encode(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def gradient(width: int = 300, height: int = 200) -> Image.Image:
    """Red grows to the right, green downwards; blue is a chequerboard."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // (width - 1), y * 255 // (height - 1), ((x // 20 + y // 20) % 2) * 255], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def pixels(data: bytes, size: int = 64, filter: Filter = "bilinear") -> np.ndarray:
    return open_picture(Content(data), size=size, filter=filter).pixels.astype(int)


def png_header(width: int, height: int) -> bytes:
    """A PNG that promises many pixels and has almost none: a decompression bomb's first bytes."""

    def block(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + block(b"IHDR", header) + block(b"IDAT", zlib.compress(b"\0" * 1000)) + block(b"IEND", b"")


def test_vectors_of_the_default_model_stay_what_they_are(default_models: ModelStore) -> None:
    extractor = create("image_extractor_v1", models=default_models)
    (extraction,) = extract(extractor, [{"image": Content(encode(gradient()))}])
    (unit,) = extraction.units
    assert unit.fields == {"width": 300, "height": 200, "format": "png"}
    vector = unit.vectors["embedding"]
    assert vector.shape == (1280,)
    assert np.argsort(-vector)[:5].tolist() == TOP
    np.testing.assert_allclose(vector[TOP], VALUES, atol=1e-3)


def test_a_crop_is_nearer_than_another_picture(default_models: ModelStore) -> None:
    extractor = create("image_extractor_v1", models=default_models)
    crop, other = gradient().crop((30, 20, 270, 180)), Image.effect_mandelbrot((300, 200), (-2, -1.5, 1, 1.5), 100)
    query = extractor.embed_query(encode(gradient()), output="embedding")
    near, far = (float(extractor.embed_query(encode(image), output="embedding") @ query) for image in (crop, other))
    assert near > 0.8 > far
    with pytest.raises(BadRequest, match="not with a text"):
        extractor.embed_query("a gradient", output="embedding")


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encode(gradient(), "JPEG", quality=95), id="jpeg"),
        pytest.param(encode(gradient().convert("CMYK"), "JPEG", quality=95), id="cmyk-jpeg"),
        pytest.param(encode(gradient(), "WEBP", lossless=True), id="webp"),
        pytest.param(encode(gradient(), "TIFF"), id="tiff"),
        pytest.param(encode(gradient(), "BMP"), id="bmp"),
        pytest.param(encode(gradient().convert("RGBA")), id="rgba-png"),
        pytest.param(encode(gradient().convert("P", palette=Image.Palette.ADAPTIVE)), id="palette-png"),
        pytest.param(encode(gradient(), "GIF", save_all=True, append_images=[Image.new("RGB", (300, 200))]), id="animated-gif"),
        pytest.param(encode(gradient(), "MPO", quality=95, save_all=True, append_images=[gradient()]), id="mpo"),
    ],
)
def test_the_same_picture_in_another_format_looks_the_same(data: bytes) -> None:
    assert np.abs(pixels(data) - pixels(encode(gradient()))).mean() < 12


@pytest.mark.parametrize(
    ("image", "corner"),
    [
        (Image.new("RGBA", (50, 50), (255, 0, 0, 0)), (255, 255, 255)),
        (Image.new("RGBA", (50, 50), (255, 0, 0, 128)), (255, 127, 127)),
        (Image.new("LA", (50, 50), (0, 0)), (255, 255, 255)),
        (Image.new("L", (50, 50), 77), (77, 77, 77)),
        (Image.new("1", (50, 50), 1), (255, 255, 255)),
        (Image.fromarray(np.full((50, 50), 77 * 257, np.uint16)), (77, 77, 77)),
    ],
    ids=["clear", "half-clear", "clear-grey", "grey", "bits", "16-bit"],
)
def test_modes_become_rgb_over_white(image: Image.Image, corner: tuple[int, int, int]) -> None:
    assert np.abs(pixels(encode(image))[0, 0] - corner).max() <= 1


def test_a_palette_with_a_clear_colour_is_laid_over_white() -> None:
    image = Image.new("P", (50, 50), 0)
    image.putpalette([255, 0, 0, 0, 255, 0])
    assert pixels(encode(image, transparency=0))[0, 0].tolist() == [255, 255, 255]


def test_floats_are_stretched_to_eight_bits() -> None:
    image = Image.fromarray(np.linspace(0, 0.01, 64 * 64, dtype=np.float32).reshape(64, 64))
    values = pixels(encode(image, "TIFF"))
    assert values.min() <= 3
    assert values.max() >= 252


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_obeyed(orientation: int) -> None:
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Image.Transpose that the camera applied
    stored = gradient() if orientation == 1 else gradient().transpose(Image.Transpose(undo[orientation]))
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = open_picture(Content(encode(stored, "JPEG", quality=95, exif=exif)), size=64)
    assert (picture.width, picture.height) == (300, 200)
    assert np.abs(picture.pixels.astype(int) - pixels(encode(gradient()))).mean() < 12


@pytest.mark.parametrize("size", [16, 64, 190, 256, 400])
@pytest.mark.parametrize(
    "image",
    [gradient(), gradient(1200, 900), gradient(1500, 60), gradient(900, 640).convert("L"), gradient().convert("CMYK"),
     Image.merge("RGBA", [*gradient().split(), Image.linear_gradient("L").resize((300, 200))])],
    ids=["photo", "large", "panorama", "grey", "cmyk", "see-through"],
)  # fmt: skip
def test_the_fast_filter_shows_what_the_exact_one_shows(image: Image.Image, size: int) -> None:
    data = encode(image, "PNG" if image.mode == "RGBA" else "JPEG")
    # Red and green are smooth; the chequerboard in blue is finer than the smallest squares can show.
    assert np.abs(pixels(data, size, "fast") - pixels(data, size, "bilinear"))[..., :2].mean() < 4


def test_the_fast_filter_makes_the_same_of_jpeg_and_png() -> None:
    image = gradient(480, 360)
    difference = np.abs(pixels(encode(image, "JPEG", quality=98), 224, "fast") - pixels(encode(image), 224, "fast"))
    assert difference[..., :2].mean() < 2


FILTERS: tuple[Filter, ...] = ("fast", "bilinear", "bicubic")
JPEG, PNG = encode(gradient(), "JPEG"), encode(gradient())


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty (0 bytes)"),
        (b"just a text, named wrongly", "is no image."),
        (b"%PDF-1.4", "is no image: it looks like a PDF document"),
        (b"<svg xmlns='x'/>", "is no image: it looks like an SVG drawing"),
        (JPEG[:2000], "damaged or truncated JPEG"),
        (PNG[: len(PNG) // 2], "damaged or truncated PNG"),
        (JPEG[:20], "damaged"),
        (PNG[:60] + bytes(400) + PNG[460:], "damaged"),
        (encode(gradient(), "GIF")[:900], "damaged or truncated GIF"),
        (png_header(8000, 8000), "8000 × 8000 pixels"),
        (png_header(30_000, 30_000), "pixels"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no image"),
    ],
    ids=["empty", "text", "pdf", "svg", "cut-jpeg", "cut-png", "stub-jpeg", "broken-png", "cut-gif", "bomb", "huge-bomb", "eps"],
)  # fmt: skip
@pytest.mark.filterwarnings("default::PIL.Image.DecompressionBombWarning")
def test_a_bad_file_is_refused_in_plain_words(data: bytes, message: str) -> None:
    for filter in FILTERS:
        with pytest.raises(ExtractionError) as caught:
            open_picture(Content(data, "photo.jpg"), size=224, filter=filter)
        assert message in caught.value.message
        assert caught.value.message.startswith("photo.jpg ")
        assert "\n" not in caught.value.message
    with pytest.raises(ExtractionError):
        thumbnail(data)


def test_the_content_decides_not_the_name() -> None:
    assert open_picture(Content(PNG, "photo.jpg"), size=8).format == "PNG"


def test_a_thumbnail_is_small_and_keeps_proportions() -> None:
    image = Image.open(io.BytesIO(thumbnail(encode(gradient(1200, 800), "JPEG"))))
    assert (image.format, image.size) == ("JPEG", (128, 85))
    assert Image.open(io.BytesIO(thumbnail(encode(gradient(20, 10))))).size == (20, 10)


def test_decoding_is_the_same_from_many_threads() -> None:
    files = [encode(gradient(200 + step, 100), kind) for step in range(8) for kind in ("PNG", "JPEG", "GIF")]
    decode: Callable[[bytes], bytes] = lambda data: pixels(data).tobytes()  # noqa: E731
    expected = [decode(data) for data in files]
    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(decode, files * 4)) == expected * 4
