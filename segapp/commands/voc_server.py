"""Makes the archive of masks that the PASCAL VOC evaluation server scores: the test set's labels are not public.

python tools/voc_server.py data.root=VOCdevkit/VOC2012 output=DIR      the published VOC weights; again: goes on
python tools/voc_server.py checkpoint=runs/train/RUN output=DIR competition=comp5
python tools/voc_server.py predictions=DIR                             checks and packs masks that are there
"""

from segapp.base.compose import read_config
from segapp.cli import output_folder
from segapp.evaluation.voc_server import ARCHIVE, ServerConfig, make_archive, open_split

LESS_MEMORY = "take a smaller canvas with inference"


def main(overrides: list[str]) -> int:
    """Labels the split's images, checks the masks and packs them. Returns the exit status."""
    config = read_config("voc_server", overrides, ServerConfig)
    dataset = open_split(config)
    with output_folder(config.output, "voc_server", config.split) as output:
        make_archive(dataset, config, output)
    print(f"masks    {output / config.folder}")
    print(f"archive  {output / ARCHIVE}")
    print(f"\n{len(dataset)} masks of voc2012 {config.split}, for competition {config.competition}")
    return 0
