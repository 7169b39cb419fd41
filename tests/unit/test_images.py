"""Pixels: every file as a viewer on white shows it, by formulas of this test's own."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageColor, ImageOps, PngImagePlugin

from promptecho.captions.inputs import image_list
from promptecho.errors import DataError
from promptecho.images import HEIF_EXTRA, load_image

SIDE = 16
RAMP = np.arange(SIDE * SIDE, dtype=np.uint8).reshape(SIDE, SIDE)  # every grey once
COLOURS = np.stack([RAMP, RAMP.T, np.full_like(RAMP, 90)], axis=2)
ALPHA = np.linspace(0, 255, SIDE).round().astype(np.uint8)[None].repeat(SIDE, axis=0)


def saved(path, image: Image.Image, **options):
    image.save(path, **options)
    return path


def pixels(path, **options) -> np.ndarray:
    image = load_image(path, **options)
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


def grey(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[..., None], 3, axis=2)


def over(colours: np.ndarray, alpha: np.ndarray, background=(255, 255, 255)) -> np.ndarray:
    """Rounded as real numbers are."""
    a = alpha[..., None] / 255
    return np.floor(colours * a + np.array(background) * (1 - a) + 0.5).astype(int)


def same(left: np.ndarray, right: np.ndarray, tolerance: int = 0) -> None:
    assert left.shape == right.shape
    np.testing.assert_allclose(left, right, rtol=0, atol=tolerance)


def test_plain_rgb_stays_the_same_bytes(tmp_path):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    upright = Image.Exif()
    upright[0x0112] = 6
    for name, options in [
        ("a.png", {}),
        ("a.jpg", {}),
        ("b.jpg", {"exif": upright}),
        ("b.png", {"icc_profile": srgb}),
        ("a.webp", {}),
        ("a.bmp", {}),
        ("a.tif", {}),
    ]:
        path = saved(tmp_path / name, noise, **options)
        with Image.open(path) as opened:
            before = ImageOps.exif_transpose(opened).convert("RGB")
        image = load_image(path)
        assert image.tobytes() == before.tobytes() and image.size == before.size and image.info["done"] == ()
        assert image.info["path"] == str(path)


def test_more_than_eight_bits_by_their_whole_range(tmp_path):
    wide = RAMP.astype(np.uint16) * 257
    odd = np.arange(SIDE * SIDE, dtype=np.uint16).reshape(SIDE, SIDE) * 256
    dark = (wide // 16).astype(np.uint16)  # what an instrument of 12 bits leaves in 16: dark in every viewer
    for values, expected in [(wide, RAMP), (odd, np.floor(odd / 257 + 0.5)), (dark, np.floor(dark / 257 + 0.5))]:
        image = Image.fromarray(values)
        for name in ("g.png", "g.tif", "g.jp2"):
            path = saved(tmp_path / name, image)
            same(pixels(path), grey(expected))
        assert load_image(path).info["done"] == ("more than 8 bits",)
    big_endian = Image.frombytes("I;16B", (SIDE, SIDE), wide.astype(">u2").tobytes())
    same(pixels(saved(tmp_path / "b.tif", big_endian)), grey(RAMP))
    (tmp_path / "w.pgm").write_bytes(b"P5 16 16 65535\n" + wide.astype(">u2").tobytes())
    (tmp_path / "t.pgm").write_bytes(b"P5 16 16 1023\n" + (RAMP.astype(int) * 4).astype(">u2").tobytes())
    same(pixels(tmp_path / "w.pgm"), grey(RAMP))
    same(pixels(tmp_path / "t.pgm"), grey(np.floor(RAMP.astype(int) * 4 / 1023 * 255 + 0.5)), tolerance=1)
    inverted = saved(tmp_path / "i.tif", Image.fromarray(wide), tiffinfo={262: 0})
    with Image.open(inverted) as opened:
        assert opened.tag_v2[262] == 0
    same(pixels(inverted), grey(255 - RAMP.astype(int)))


def test_colours_of_sixteen_bits(tmp_path):
    import struct
    import zlib

    def png(bits: int, kind: int, data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
        def chunk(name: bytes, body: bytes) -> bytes:
            return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

        head = struct.pack(">IIBBBBB", SIDE, SIDE, bits, kind, 0, 0, 0)
        rows = len(data) // SIDE
        lines = b"".join(b"\0" + data[i * rows : (i + 1) * rows] for i in range(SIDE))
        body = b"".join(chunk(*c) for c in [(b"IHDR", head), *chunks, (b"IDAT", zlib.compress(lines)), (b"IEND", b"")])
        return b"\x89PNG\r\n\x1a\n" + body

    wide = COLOURS.astype(np.uint16) * 257
    (tmp_path / "c.png").write_bytes(png(16, 2, wide.astype(">u2").tobytes()))
    same(pixels(tmp_path / "c.png"), COLOURS)
    key = struct.pack(">HHH", *wide[3, 5])
    (tmp_path / "k.png").write_bytes(png(16, 2, wide.astype(">u2").tobytes(), (b"tRNS", key)))
    hidden = (COLOURS[3, 5] == COLOURS).all(axis=2)
    same(pixels(tmp_path / "k.png"), np.where(hidden[..., None], 255, COLOURS))
    four = (RAMP % 16).astype(np.uint8)  # grey of 4 bits, of which 5 is transparent
    packed = (four[:, ::2] << 4 | four[:, 1::2]).tobytes()
    (tmp_path / "f.png").write_bytes(png(4, 0, packed, (b"tRNS", struct.pack(">H", 5))))
    same(pixels(tmp_path / "f.png"), grey(np.where(four == 5, 255, four.astype(int) * 17)))
    (tmp_path / "s.png").write_bytes(
        png(16, 0, (RAMP.astype(np.uint16) * 257).astype(">u2").tobytes(), (b"tRNS", struct.pack(">H", 40 * 257)))
    )
    same(pixels(tmp_path / "s.png"), grey(np.where(RAMP == 40, 255, RAMP)))
    both = np.stack([RAMP, ALPHA], axis=2).astype(np.uint16) * 257
    (tmp_path / "l.png").write_bytes(png(16, 4, both.astype(">u2").tobytes()))
    same(pixels(tmp_path / "l.png"), over(grey(RAMP), ALPHA))


def test_floating_point_is_zero_to_one_or_refused(tmp_path):
    path = saved(tmp_path / "f.tif", Image.fromarray((RAMP / 255).astype(np.float32)))
    same(pixels(path), grey(RAMP))
    for values, told in [
        (RAMP * 2.0, "from 0 to 510"),
        (RAMP / 255 - 0.5, "from -0.5 to 0.5"),
        (np.where(RAMP == 3, np.nan, 0.5), "from nan to nan"),
    ]:
        path = saved(tmp_path / "bad.tif", Image.fromarray(values.astype(np.float32)))
        with pytest.raises(DataError, match=rf"bad\.tif: floating-point pixels {told}, .*convert it"):
            load_image(path)
    path = saved(tmp_path / "i.tif", Image.fromarray(RAMP.astype(np.int32) * 1000))
    with pytest.raises(DataError, match=r"i\.tif: whole numbers of 32 bits, from 0 to 255000"):
        load_image(path)
    path = saved(tmp_path / "s.tif", Image.fromarray(RAMP.astype(np.int32) - 9), tiffinfo={339: 2})
    with pytest.raises(DataError, match=r"s\.tif: whole numbers .*from -9 to 246"):
        load_image(path)


def test_transparency_shows_the_background(tmp_path):
    rgba = Image.fromarray(np.dstack([COLOURS, ALPHA]))
    for name in ("a.png", "a.tif", "a.tga", "a.qoi"):
        same(pixels(saved(tmp_path / name, rgba)), over(COLOURS, ALPHA))
    same(pixels(saved(tmp_path / "a.webp", rgba, lossless=True, exact=True)), over(COLOURS, ALPHA))
    same(pixels(tmp_path / "a.png", background="#204060"), over(COLOURS, ALPHA, (0x20, 0x40, 0x60)))
    assert load_image(tmp_path / "a.png").info["done"] == ("transparency",)
    la = Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(ALPHA)])
    same(pixels(saved(tmp_path / "la.png", la)), over(grey(RAMP), ALPHA))
    logo = Image.new("RGBA", (SIDE, SIDE))  # black on transparent black
    logo.paste((0, 0, 0, 255), (4, 4, 8, 8))
    shown = pixels(saved(tmp_path / "logo.png", logo))
    assert shown[0, 0].tolist() == [255] * 3 and shown[5, 5].tolist() == [0] * 3
    opaque = Image.fromarray(np.dstack([COLOURS, np.full_like(RAMP, 255)]))
    assert load_image(saved(tmp_path / "o.png", opaque)).info["done"] == ()
    unused = Image.fromarray(np.dstack([COLOURS, np.zeros_like(RAMP)]))
    same(pixels(saved(tmp_path / "u.tga", unused)), COLOURS)


def test_one_colour_or_a_palette_that_is_transparent(tmp_path):
    key = tuple(int(value) for value in COLOURS[2, 7])
    hidden = (COLOURS[2, 7] == COLOURS).all(axis=2)[..., None]
    same(pixels(saved(tmp_path / "k.png", Image.fromarray(COLOURS), transparency=key)), np.where(hidden, 255, COLOURS))
    same(pixels(saved(tmp_path / "l.png", Image.fromarray(RAMP), transparency=7)), grey(np.where(RAMP == 7, 255, RAMP)))
    palette = np.random.default_rng(1).integers(0, 256, (256, 3), dtype=np.uint8)
    image = Image.fromarray(RAMP)
    image = Image.frombytes("P", (SIDE, SIDE), RAMP.tobytes())
    image.putpalette(palette.tobytes())
    same(pixels(saved(tmp_path / "p.png", image)), palette[RAMP])
    alphas = bytes(range(256))
    same(pixels(saved(tmp_path / "pa.png", image, transparency=alphas)), over(palette[RAMP], RAMP))
    same(pixels(saved(tmp_path / "p.gif", image, transparency=9)), np.where(grey(RAMP) == 9, 255, palette[RAMP]))
    bits = Image.fromarray(RAMP % 3 == 0)
    same(pixels(saved(tmp_path / "1.png", bits)), grey((RAMP % 3 == 0) * 255))
    same(pixels(saved(tmp_path / "1.tif", bits)), grey((RAMP % 3 == 0) * 255))


def test_embedded_profiles_are_converted_to_srgb(tmp_path):
    """A matrix profile of Display P3 made here, against its own matrices and the curve of sRGB."""
    profile = display_p3()
    shown = pixels(saved(tmp_path / "p3.png", Image.fromarray(COLOURS), icc_profile=profile))
    linear = np.where((c := COLOURS / 255) <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    mixed = np.clip(linear @ (XYZ_FROM_P3.T @ np.linalg.inv(XYZ_FROM_SRGB).T), 0, 1)
    expected = 255 * np.where(mixed <= 0.0031308, mixed * 12.92, 1.055 * mixed ** (1 / 2.4) - 0.055)
    same(shown, expected, tolerance=2)
    assert np.abs(shown - COLOURS).max() > 20 and load_image(tmp_path / "p3.png").info["done"] == ("colour profile",)
    path = saved(tmp_path / "bad.png", Image.fromarray(COLOURS), icc_profile=profile[:200])
    same(pixels(path), COLOURS)
    assert load_image(path).info["done"] == ("damaged colour profile ignored",)
    path = saved(tmp_path / "grey.png", Image.fromarray(RAMP), icc_profile=profile)
    same(pixels(path), grey(RAMP))
    assert load_image(path).info["done"] == ("unfit colour profile ignored",)
    both = saved(tmp_path / "a.png", Image.fromarray(np.dstack([COLOURS, ALPHA])), icc_profile=profile)
    same(pixels(both), over(shown, ALPHA))


# Columns: X, Y, Z of the primaries at D50, as both profiles carry them.
XYZ_FROM_SRGB = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
XYZ_FROM_P3 = np.array([[0.51512, 0.29198, 0.15710], [0.24120, 0.69225, 0.06657], [-0.00105, 0.04189, 0.78407]])


def display_p3() -> bytes:
    """The profile of sRGB with other primaries."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(data[128:132], "big")
    for index in range(count):
        name, start = data[132 + 12 * index : 136 + 12 * index], 136 + 12 * index
        offset = int.from_bytes(data[start : start + 4], "big")
        if bytes(name) in (b"rXYZ", b"gXYZ", b"bXYZ"):
            for row, value in enumerate(XYZ_FROM_P3[:, "rgb".index(chr(name[0]))]):
                place = offset + 8 + 4 * row
                data[place : place + 4] = int(round(value * 65536)).to_bytes(4, "big", signed=True)
    return bytes(data)


def test_inks_and_other_colour_models(tmp_path):
    ink = np.dstack([COLOURS, np.full_like(RAMP, 30)]).astype(int)
    expected = (255 - ink[..., :3]) * (255 - ink[..., 3:]) / 255
    cmyk = Image.frombytes("CMYK", (SIDE, SIDE), ink.astype(np.uint8).tobytes())
    same(pixels(saved(tmp_path / "c.tif", cmyk)), expected, tolerance=1)
    flat = Image.new("CMYK", (SIDE, SIDE), (200, 30, 90, 10))  # a JPEG of Adobe holds the inverse
    same(pixels(saved(tmp_path / "c.jpg", flat, quality=100)), np.full((SIDE, SIDE, 3), [53, 216, 159]), tolerance=3)
    lab = Image.frombytes("LAB", (SIDE, SIDE), np.dstack([RAMP, RAMP * 0, RAMP * 0]).tobytes())
    shown = pixels(saved(tmp_path / "lab.tif", lab))
    assert np.ptp(shown, axis=2).max() <= 3 and shown[0, 0].max() <= 1 and shown[-1, -1].min() >= 252


def test_orientation_and_first_frame(tmp_path):
    for tag, turn in [
        (2, Image.Transpose.FLIP_LEFT_RIGHT),
        (3, Image.Transpose.ROTATE_180),
        (6, Image.Transpose.ROTATE_270),
        (8, Image.Transpose.ROTATE_90),
    ]:
        exif = Image.Exif()
        exif[0x0112] = tag
        for name in ("o.png", "o.tif", "o.webp"):
            more = {"lossless": True} if name == "o.webp" else {}
            path = saved(tmp_path / name, Image.fromarray(COLOURS[:, :10].copy()), exif=exif, **more)
            same(pixels(path), np.asarray(Image.fromarray(COLOURS[:, :10].copy()).transpose(turn)).astype(int))
        path = saved(tmp_path / "o16.png", Image.fromarray(RAMP[:, :10].astype(np.uint16) * 257), exif=exif)
        same(pixels(path), grey(np.asarray(Image.fromarray(RAMP[:, :10].copy()).transpose(turn))))
    frames = [Image.new("RGB", (SIDE, SIDE), colour) for colour in ("red", "blue", "green")]
    for name, options in [("f.gif", {}), ("f.webp", {"lossless": True}), ("f.png", {}), ("f.tif", {})]:
        path = saved(tmp_path / name, frames[0], save_all=True, append_images=frames[1:], **options)
        same(pixels(path), np.full((SIDE, SIDE, 3), [255, 0, 0]), tolerance=1)
        assert load_image(path).info["done"] == ("first of several frames",)


def test_large_images_are_shrunk_to_the_limit(tmp_path):
    image = Image.fromarray(np.tile(COLOURS, (8, 12, 1)))  # 192 x 128
    path = saved(tmp_path / "a.png", image)
    small = load_image(path, max_pixels=96 * 64)
    assert small.size == (96, 64) and small.info["done"] == ("shrunk",) and small.info["path"] == str(path)
    assert small.tobytes() == image.resize((96, 64), Image.Resampling.LANCZOS).tobytes()
    assert load_image(path, max_pixels=192 * 128).tobytes() == image.tobytes()
    thin = load_image(saved(tmp_path / "l.png", image.resize((3000, 2))), max_pixels=1000)
    assert thin.width * thin.height <= 1000 and thin.height == 1


def test_huge_photographs_are_shrunk_and_attacks_refused(tmp_path, capsys):
    path = saved(tmp_path / "huge.jpg", Image.new("L", (12_000, 8_000), 77))
    image = load_image(path, max_pixels=1024 * 1024)
    assert image.size == (1254, 836) and image.getpixel((5, 5)) == (77, 77, 77)
    assert "huge.jpg: 12000x8000 pixels, shrunk to 1,048,576 of them at most" in capsys.readouterr().err
    # A head that claims too much is refused before anything is decoded.
    for size, told in [((40_000, 30_000), "1,000,000,000"), ((60_000, 60_000), "2,000,000,000")]:
        head = io.BytesIO()
        Image.new("1", (8, 8)).save(head, "PPM")
        (tmp_path / "bomb.pbm").write_bytes(b"P4 %d %d\n" % size + bytes(100))
        with pytest.raises(DataError, match=rf"bomb\.pbm: more than {told} pixels"):
            load_image(tmp_path / "bomb.pbm")


def test_bad_files_are_named_in_one_line(tmp_path):
    (tmp_path / "new\nline.png").write_bytes(b"no image")
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(DataError, match=r"new\\u000Aline\.png: not a readable image"):
        load_image(tmp_path / "new\nline.png")
    with pytest.raises(DataError, match="no such image file"):
        load_image(tmp_path / "none.png")
    for content, says in {
        b"<html>Sign in": "a web page, not an image; its address wants a login",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>": r"XML \(a drawing, or .*\), not an image; export it",
    }.items():
        (tmp_path / "a.jpg").write_bytes(content)
        with pytest.raises(DataError, match=rf"a\.jpg: {says}.*, or remove it$"):
            load_image(tmp_path / "a.jpg")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(DataError, match=r"pipe\.png: a pipe or device, not a plain file"):
        load_image(tmp_path / "pipe.png")
    code = (
        "import sys; sys.modules['pillow_heif'] = None\nfrom promptecho.images import load_image\n"
        "from promptecho.errors import DataError\n"
        "try:\n    load_image('a.heic')\nexcept DataError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    said = "a.heic: a HEIC file; install pillow-heif to read them: pip install -e '.[heic]' in the checkout\n"
    assert done.stdout == said, done.stderr


HEIC = {  # corners of the picture as it is shown: top left, top right, bottom left, bottom right; what was done
    "turned": ("blue", "red", "white", "lime", ()),  # kept lying on its side, as phones do
    "alpha": ("white", "white", "blue", "white", ("transparency",)),
    "two": ("white", "blue", "lime", "red", ("primary one of several pictures",)),  # the second is the primary one
}


@pytest.mark.parametrize("name", HEIC)
def test_heic_is_read_where_the_package_is_there_or_the_extra_is_named(tmp_path, name):
    path = tmp_path / f"{name}.HEIC"
    shutil.copy(Path(__file__).parent / f"heic/{name}.heic", path)
    *corners, done = HEIC[name]
    saved(tmp_path / "a.png", Image.fromarray(COLOURS))
    listed = image_list(tmp_path)
    if importlib.util.find_spec("pillow_heif") is None:
        with pytest.raises(DataError, match=r"HEIC: a HEIC file; install pillow-heif .*\[heic\]"):
            load_image(path)
        assert len(listed.items) == 1 and list(listed.left_out[""]) == [f".heic ({HEIF_EXTRA})"]
        (tmp_path / "a.png").unlink()
        with pytest.raises(DataError, match=r"holds no images .*; left out: 1 \.heic \(install pillow-heif"):
            image_list(tmp_path)
        return
    image = load_image(path)
    assert [item.image_id for item in listed.items] == ["a.png", path.name] and image.info["done"] == done
    right, low = image.width - 4, image.height - 4
    seen = [image.getpixel(place) for place in ((3, 3), (right, 3), (3, low), (right, low))]
    expected = [ImageColor.getrgb(corner) for corner in corners]
    assert np.abs(np.array(seen) - np.array(expected)).max() <= 3  # of 255: the codec's loss
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=r"HEIC: not a readable image"):
        load_image(path)


def test_comments_of_a_file_do_not_change_it(tmp_path):
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * 1000)
    same(pixels(saved(tmp_path / "c.png", Image.fromarray(COLOURS), pnginfo=text)), COLOURS)
