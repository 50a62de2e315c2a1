"""By what files of weights from elsewhere are told, before anything reads them."""

from pathlib import Path

ARCHIVES = (".tar.gz", ".tgz", ".tar")
KERAS = (".h5", ".hdf5", ".keras")


def is_torch_file(path: Path) -> bool:
    """Whether torch.save has written it, by its content: people call such files .pth.tar, too."""
    try:
        with path.open("rb") as file:
            return file.read(4)[:4] in (b"PK\x03\x04", b"\x80\x02\x8a\x0a")  # the latter before 2020
    except OSError:
        return False
