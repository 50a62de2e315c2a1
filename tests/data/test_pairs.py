"""Lists of images as people have them, and what is told of lines that name nothing."""

import unicodedata
from pathlib import Path
from typing import Literal

import pytest

from segapp.base.errors import UserError
from segapp.data.pairs import Unpaired
from tests.data.samples import ids, put
from tests.folders import folder

Form = Literal["NFC", "NFD"]

LINES = {
    "id": ("x/a", "c"),
    "inside the folder": ("x/a_i.jpg", "c_i.jpg"),
    "inside the root": ("images/x/a_i.jpg", "./images/c_i.jpg"),
    "after a slash": ("/images/x/a_i.jpg", "/images//c_i.jpg"),
    "dots": ("./x/a_i.jpg", "./x/../c"),
    "absolute": ("{root}/images/x/a_i.jpg", "{root}/images/c_i.jpg"),
    "absolute, through a link": ("{given}/images/x/a_i.jpg", "{root}/images/c_i.jpg"),
    "without suffix": ("images/x/a_i", "x/../c_i"),
    "pairs": ("images/x/a_i.jpg masks/x/a.png", "images/c_i.jpg\tmasks/c.png"),
    "pairs after a slash": ("/images/x/a_i.jpg /masks/x/a.png", "/images/c_i.jpg   /masks/c.png"),
    "pairs inside their folders": ("x/a_i.jpg x/a.png", "c_i.jpg c.png"),
    "absolute pairs": ("{root}/images/x/a_i.jpg {root}/masks/x/a.png", "{given}/images/c_i.jpg masks/c.png"),
    "of any kind": ("  x/a  ", "/images/c_i.jpg masks/c.png"),
}


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
@pytest.mark.parametrize("through", ["root", "link"])
def test_lists_as_people_have_them(tmp_path: Path, lines: tuple[str, str], through: str) -> None:
    root, link = tmp_path / "root", tmp_path / "link"
    put(
        root, "images/x/a_i.jpg", "images/x/b_i.jpg", "images/c_i.jpg", "masks/x/a.png", "masks/x/b.png", "masks/c.png"
    )
    link.symlink_to(root)
    (root / "val.txt").write_text("\r\n".join(lines).format(root=root, given=tmp_path / through))
    config = folder(tmp_path / through, image_ending="_i", val="val.txt")
    assert ids(config) == (["x/b"], ["x/a", "c"])
    assert config.dataset("val").images[1] == tmp_path / through / "images/c_i.jpg"


def test_names_with_spaces_in_pairs(tmp_path: Path) -> None:
    put(tmp_path, "images/a b.jpg", "images/a.jpg", "masks/a b.png", "masks/a.png")
    (tmp_path / "val.txt").write_text("a b.jpg a b.png\n")
    assert ids(folder(tmp_path, val="val.txt")) == (["a"], ["a b"])
    (tmp_path / "val.txt").write_text("a b\n")
    assert ids(folder(tmp_path, val="val.txt")) == (["a"], ["a b"])


def test_lists_in_folders_of_folders(tmp_path: Path) -> None:
    put(tmp_path, "u/images/1.jpg", "u/masks/1.png", "v/images/1.jpg", "v/masks/1.png")
    (tmp_path / "val.txt").write_text("v/images/1.jpg v/masks/1.png\n")
    assert ids(folder(tmp_path, images="*/images", masks="*/masks", val="val.txt")) == (["u/1"], ["v/1"])


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (
            "c\nx/d\nx/e\n",
            r"^x/d \(and 1 more\): no such image in .*images, but .*val\.txt, line 2, lists it; .*check",
        ),
        ("c\n\n../c.jpg\n", r"^\.\./c\.jpg: no such image in .*images, but .*val\.txt, line 3, lists it$"),
        ("/elsewhere/images/c.jpg", r"^/elsewhere/images/c\.jpg: no such image in"),
        ("c.jpg c.png 1", r"^c\.jpg c\.png 1: no such image in"),
        ("c c", r"^c c: no such image in"),
        ("imagesx/c.jpg", r"^imagesx/c\.jpg: no such image in"),
        ("masks/c.png", r"^masks/c\.png: no such image in"),
        (
            "c\nx/a.jpg masks/c.png",
            r"x/a\.jpg: its mask .* \(masks/x/a\.png\), but .*val\.txt, line 2, names masks/c\.png",
        ),
        ("x/a.jpg x/nothing.png", r"x/a\.jpg: its mask .* \(masks/x/a\.png\), but .* names x/nothing\.png"),
        ("b.jpg masks/a.png", r"b\.jpg: its mask .* \(none in .*masks\), but .* names masks/a\.png"),
        ("c\nx/a\n./c.jpg\n", r"val\.txt, line 3: \./c\.jpg is listed twice, on line 1 before"),
        (b"\xff\xfe\x00c", r"val\.txt: the list of images is no text file"),
        ("c\n".encode("utf-16"), r"val\.txt: .* no text file in UTF-8, but UTF-16; save it as UTF-8"),
        (b"\x80c", r"val\.txt: .* no text file in UTF-8, which is needed"),
        (" \n\n", r"val\.txt: the list is empty; one image a line"),
    ],
)
def test_lines_that_name_nothing_are_told_with_their_number(tmp_path: Path, lines: str | bytes, message: str) -> None:
    put(tmp_path, "images/x/a.jpg", "images/b.jpg", "images/c.jpg", "masks/x/a.png", "masks/c.png")
    (tmp_path / "val.txt").write_bytes(lines if isinstance(lines, bytes) else lines.encode())
    with pytest.raises(UserError, match=message):
        folder(tmp_path, val="val.txt").dataset("val")


@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD"), ("NFD", "NFD")])
def test_images_and_masks_of_either_form_of_unicode_are_pairs(tmp_path: Path, forms: tuple[Form, Form]) -> None:
    """macOS writes an e and its accent as two characters, others as one; lists may have either."""
    name = unicodedata.normalize("NFC", "café")
    image, mask = (unicodedata.normalize(form, name) for form in forms)
    put(tmp_path, f"images/{image}.jpg", "images/b.jpg", f"masks/{mask}.png", "masks/b.png")
    listed: tuple[Form, ...] = ("NFC", "NFD")
    for form in listed:
        (tmp_path / "val.txt").write_text(f"images/{unicodedata.normalize(form, name)}.jpg\n")
        config = folder(tmp_path, val="val.txt")
        assert ids(config) == (["b"], [name])
        assert config.dataset("val").images[0].exists()
        assert config.dataset("val")[0].label is not None


def test_lists_with_windows_paths(tmp_path: Path) -> None:
    put(tmp_path, "images/x/a.jpg", "images/b.jpg", "masks/x/a.png", "masks/b.png")
    for line in ("images\\x\\a.jpg", "x\\a", ".\\images\\x\\a.jpg", "images\\x\\a.jpg masks\\x\\a.png"):
        (tmp_path / "val.txt").write_text(f"{line}\r\n")
        assert ids(folder(tmp_path, val="val.txt")) == (["b"], ["x/a"]), line


def test_a_name_that_holds_a_backslash_is_itself(tmp_path: Path) -> None:
    put(tmp_path, "images/x\\a.jpg", "images/x/a.jpg", "masks/x\\a.png", "masks/x/a.png")
    (tmp_path / "val.txt").write_text("x\\a.jpg\n")
    assert ids(folder(tmp_path, val="val.txt")) == (["x/a"], ["x\\a"])


def test_endings_that_are_not_read_are_told_once_with_their_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(tmp_path, "images/a.jpg", "images/b.jfif", "masks/a.png", "masks/b.png")
    for name in ("c.heic", "x/d.HEIC", "e.dng", "readme.txt", "a.json", "Thumbs.db", "._f.heic"):
        (tmp_path / "images" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "images" / name).write_bytes(b"x")
    (tmp_path / "masks" / "a.npy").write_bytes(b"x")
    unpaired: list[Unpaired] = []
    folder(tmp_path).dataset("train", unpaired.extend)
    assert [(Path(each.file).name, each.why.partition(":")[0]) for each in unpaired] == [
        ("*.dng", "1 file not read"), ("*.heic", "2 files not read"), ("*.npy", "1 file not read"),
    ]  # fmt: skip
    with caplog.at_level("WARNING"):
        for role in ("train", "val"):
            folder(tmp_path).dataset(role)
    assert caplog.text.count("*.heic: 2 files not read: the ending is not that of a picture") == 1
