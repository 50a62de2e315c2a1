import base64
import io

import numpy as np
from PIL import Image

from segapp.base.classes import voc_palette
from segapp.reports.kit import MAX_SIDE, data_uri
from tests.reports.examples import GREEN


def test_large_pictures_are_scaled_down_with_labels_unmixed() -> None:
    labels = np.zeros((300, 3000), np.uint8)
    labels[:, 1500:] = 2
    content = base64.b64decode(data_uri(labels, voc_palette()).partition(",")[2])
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    assert max(picture.size) == MAX_SIDE
    colours = picture.getcolors()
    assert colours is not None
    assert {colour for _, colour in colours} == {(0, 0, 0), GREEN}
